"""Naive twin of the comparison of two runs: all samples at hand, one element at a time, exact rational arithmetic."""

import math
from fractions import Fraction

from tests.reference import two_pass


def varies(values, ieee):
    """All finite, and not all the same."""
    return all(math.isfinite(v) for v in [*values, ieee]) and any(v != values[0] for v in values)


def variance(values):
    """Mean squared distance from the mean, over n - 1."""
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    return sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)


def std_ratio(samples_a, ieee_a, samples_b, ieee_b):
    """Flat lists of elements, each a list of samples: rms of the standard deviations of A over that of B."""
    above = below = Fraction(0)
    for a, x, b, y in zip(samples_a, ieee_a, samples_b, ieee_b, strict=True):
        if varies(a, x) and varies(b, y):
            above += variance(a)
            below += variance(b)
    return math.sqrt(above / below) if below else None


def unstable(samples, ieee, below, *settings):
    """The set of the places of unstable elements: class noise, or fewer bits than `below`."""
    marked = set()
    for i, (values, x) in enumerate(zip(samples, ieee, strict=True)):
        kind, bits = two_pass.kind(values, x, *settings)
        if kind == "noise" or (kind == "number" and bits < below):
            marked.add(i)
    return marked


def agreement(a, b):
    """Dice, precision and recall of two sets; None where there is nothing to divide by."""
    both = len(a & b)
    dice = 2 * both / (len(a) + len(b)) if a or b else None
    return dice, both / len(a) if a else None, both / len(b) if b else None
