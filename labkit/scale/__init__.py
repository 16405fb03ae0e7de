"""Many requests, many replicas: queueing formulas, a simulator, and the arithmetic of autoscalers.

Everything in this wing computes; nothing in it measures. What it says about a real machine is *modelled*, and a plot of it
says so.
"""
