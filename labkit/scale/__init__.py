"""Many requests, many replicas: queueing formulas, a simulator, autoscalers, and what is worth watching.

Some of this wing computes: queueing, simulator, autoscale, capacity; what these say about a real machine is *modelled*, and a plot of it
says so. A stand-in (standin.py) is a model too, with real clients around it. The rest is about real servers: pool and controller,
logs, observe with its rules and dashboards, calibrate.
"""
