"""Benchmarks: labkit against the bare tool, in turn, one line each. `python -m benchmarks [NAME…]`."""
