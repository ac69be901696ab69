"""Which neighbours has a resized or pooled pixel, and what is left when some are NaN? One at a time, exactly."""

from fractions import Fraction
from itertools import product
from math import ceil, floor, isnan, nan, prod

import numpy as np


def neighbours(position, size, out, align_corners, scale_factor):
    """Return [(index, weight)] of an output position along one axis (linear interpolation, torch's coordinates)."""
    if align_corners:
        at = Fraction(position * (size - 1), out - 1) if out > 1 else Fraction(0)
    else:
        scale = 1 / Fraction(str(scale_factor)) if scale_factor is not None else Fraction(size, out)
        at = max((position + Fraction(1, 2)) * scale - Fraction(1, 2), Fraction(0))
    low = min(floor(at), size - 1)
    share = at - low
    return [(low, 1 - share), (min(low + 1, size - 1), share)]


def renormalise(values, weights, threshold):
    """Return the weighted mean of the valid values, NaN where those of NaN weigh `threshold` or more; all exactly."""
    lost = sum(w for v, w in zip(values, weights, strict=True) if isnan(v))
    if lost >= Fraction(str(threshold)):
        return nan
    kept = [(Fraction(v), w) for v, w in zip(values, weights, strict=True) if not isnan(v)]
    return float(sum(v * w for v, w in kept) / sum(w for _, w in kept))


def interpolate(x, out, threshold, align_corners=False, scale_factors=None):
    """Return x, (N, C, *size), resized to `out` by linear interpolation along each axis."""
    dims = len(out)
    scales = scale_factors or [None] * dims
    y = np.empty((*x.shape[:2], *out))
    for n, c, *place in np.ndindex(*y.shape):
        along = [neighbours(place[d], x.shape[2 + d], out[d], align_corners, scales[d]) for d in range(dims)]
        values, weights = [], []
        for corner in product(*along):
            values.append(float(x[(n, c, *(i for i, _ in corner))]))
            weights.append(prod(w for _, w in corner))
        y[(n, c, *place)] = renormalise(values, weights, threshold)
    return y


def nearest(x, out):
    """Return x, (N, C, *size), with the value of floor(position * size / out) along each axis."""
    y = np.empty((*x.shape[:2], *out))
    for n, c, *place in np.ndindex(*y.shape):
        y[(n, c, *place)] = x[(n, c, *(place[d] * x.shape[2 + d] // out[d] for d in range(len(out))))]
    return y


def mean(values, policy):
    """Return the mean of the valid values, or of all with NaN as 0."""
    if policy == "zero":
        return sum(0.0 if isnan(v) else v for v in values) / len(values)
    valid = [v for v in values if not isnan(v)]
    return sum(valid) / len(valid) if valid else nan


def adaptive_avg_pool(x, out, policy):
    """Return the means of torch's adaptive regions, floor(i n / o) to ceil((i + 1) n / o), of x (N, C, *size)."""
    y = np.empty((*x.shape[:2], *out))
    for n, c, *place in np.ndindex(*y.shape):
        spans = [
            range(floor(p * s / o), ceil((p + 1) * s / o)) for p, s, o in zip(place, x.shape[2:], out, strict=True)
        ]
        y[(n, c, *place)] = mean([float(x[(n, c, *at)]) for at in product(*spans)], policy)
    return y


def avg_pool(x, kernel, stride, padding, include_pad, policy):
    """Return the means of sliding windows of x (N, C, *size); padding is 0, or no part of the window."""
    out = [(s + 2 * padding - kernel) // stride + 1 for s in x.shape[2:]]
    y = np.empty((*x.shape[:2], *out))
    for n, c, *place in np.ndindex(*y.shape):
        values = []
        for tap in product(range(kernel), repeat=len(out)):
            at = [p * stride - padding + t for p, t in zip(place, tap, strict=True)]
            if all(0 <= a < s for a, s in zip(at, x.shape[2:], strict=True)):
                values.append(float(x[(n, c, *at)]))
            elif include_pad:
                values.append(0.0)
        y[(n, c, *place)] = mean(values, policy)
    return y
