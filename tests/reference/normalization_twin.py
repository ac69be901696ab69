"""What is the norm of the valid values? One group after the other, with Python's exact sums (math.fsum)."""

from math import fsum, isnan, nan, sqrt

import numpy as np


def moments(values):
    """Return mean and biased variance of a list of numbers without NaN."""
    mean = fsum(values) / len(values)
    return mean, fsum((v - mean) ** 2 for v in values) / len(values)


def normalize(x, groups, eps):
    """Return x, float64, with the places of each group normalised by the group's valid values.

    Args:
        groups: Lists of indices into x.
    """
    y = np.full(x.shape, nan)
    for places in groups:
        valid = [p for p in places if not isnan(x[p])]
        if valid:
            mean, var = moments([float(x[p]) for p in valid])
            for p in valid:
                y[p] = (x[p] - mean) / sqrt(var + eps)
    return y


def affine(y, axis, weight, bias):
    """Return y times the weight plus the bias of its place along an axis (or along all axes from there on)."""
    out = y.copy()
    for place in np.ndindex(*y.shape):
        at = place[axis : axis + np.ndim(weight)]
        out[place] = y[place] * weight[at] + bias[at]
    return out


def gather(shape, key):
    """Return lists of the places that have the same key, a function of the place."""
    groups = {}
    for place in np.ndindex(*shape):
        groups.setdefault(key(place), []).append(place)
    return list(groups.values())


def batch_norm(x, weight, bias, eps):
    """Normalise each channel over the batch, (N, C, ...)."""
    return affine(normalize(x, gather(x.shape, lambda p: p[1]), eps), 1, weight, bias)


def instance_norm(x, weight, bias, eps):
    """Normalise each channel of each sample, (N, C, ...)."""
    return affine(normalize(x, gather(x.shape, lambda p: p[:2]), eps), 1, weight, bias)


def group_norm(x, groups, weight, bias, eps):
    """Normalise neighbouring channels of each sample, (N, C, ...)."""
    width = x.shape[1] // groups
    return affine(normalize(x, gather(x.shape, lambda p: (p[0], p[1] // width)), eps), 1, weight, bias)


def layer_norm(x, axes, weight, bias, eps):
    """Normalise the last `axes` axes."""
    first = x.ndim - axes
    return affine(normalize(x, gather(x.shape, lambda p: p[:first]), eps), first, weight, bias)


def running(old_mean, old_var, x, per_instance, momentum):
    """Return the running mean and unbiased variance after x, (N, C, ...), from those samples with two valid values."""
    mean, var = old_mean.copy(), old_var.copy()
    for c in range(x.shape[1]):
        parts = [x[n, c] for n in range(x.shape[0])] if per_instance else [x[:, c]]
        found = []
        for part in parts:
            valid = [float(v) for v in part.ravel() if not isnan(v)]
            if len(valid) > 1:
                m, v = moments(valid)
                found.append((m, v * len(valid) / (len(valid) - 1)))
        if found:
            mean[c] += momentum * (fsum(m for m, _ in found) / len(found) - mean[c])
            var[c] += momentum * (fsum(v for _, v in found) / len(found) - var[c])
    return mean, var
