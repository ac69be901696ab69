"""A shift of channels along depth, slice by slice."""

import math

import numpy as np


def depth_shift(x: np.ndarray) -> np.ndarray:
    """Return y[n, c, d] = x[n, c, d - s], 0 where there is no such slice; s by the third in which channel c lies."""
    samples, channels, depth = x.shape[:3]
    third = math.ceil(channels / 3)
    y = np.zeros_like(x)
    for n in range(samples):
        for c in range(channels):
            s = c // third - 1
            for d in range(depth):
                if 0 <= d - s < depth:
                    y[n, c, d] = x[n, c, d - s]
    return y
