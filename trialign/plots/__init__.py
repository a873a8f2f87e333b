"""Matplotlib figures; every function takes data, draws on one figure and returns it."""
