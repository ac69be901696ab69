"""Interpolation and average pooling: a few weighted taps each."""
RULES: dict = {}
