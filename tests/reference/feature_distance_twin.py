"""Naive twin of Sauron's distances: loops over samples, channels and windows, in numpy."""

import itertools
import math

import numpy as np


def pooled(plane, window):
    sizes = [min(window, n) for n in plane.shape]
    out = []
    for corner in itertools.product(*(range(0, n - s + 1, s) for n, s in zip(plane.shape, sizes, strict=True))):
        cells = itertools.product(*(range(c, c + s) for c, s in zip(corner, sizes, strict=True)))
        values = [float(plane[cell]) for cell in cells]
        out.append(sum(values) / len(values))
    return out


def distance(one, other, window):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(pooled(one, window), pooled(other, window), strict=True)))


def scaled(plane, epsilon):
    low, high = float(np.min(plane)), float(np.max(plane))
    return (plane - low) / (high - low + epsilon)


def opt(layers, window, epsilon):
    """Mean over layers of the mean over samples and channels of the distance to channel 0."""
    means = []
    for maps in layers:
        total = 0.0
        for sample in maps:
            planes = [scaled(plane, epsilon) for plane in sample]
            for plane in planes[1:]:
                total += distance(plane, planes[0], window)
        means.append(total / (len(maps) * len(maps[0])))
    return sum(means) / len(means)


def prune(maps, reference, window):
    rows = []
    for sample in maps:
        row = [distance(plane, sample[reference], window) for plane in sample]
        largest = max(row)
        rows.append([d / largest if largest else 0.0 for d in row])
    return rows
