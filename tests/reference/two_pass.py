"""Naive twin of the statistics: every sample kept, one element at a time, exact rational arithmetic."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from scipy.stats import chi2

ORDER = ["number", "noise", "zero", "exact", "shifted", "nan", "inf", "undefined"]


def moments(values):
    """Two-pass mean and sum of squared distances of the finite values; their extremes."""
    finite = [Fraction(v) for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 0.0, math.inf, -math.inf
    mean = sum(finite) / len(finite)
    return float(mean), float(sum((v - mean) ** 2 for v in finite)), float(min(finite)), float(max(finite))


def distances(values, ieee, reference, error):
    """All Z of one element (None if the centre is 0), the exponent that absolute errors are counted from."""
    exact = [Fraction(v) for v in values]
    centre = Fraction(ieee) if reference == "ieee" else sum(exact) / len(exact)
    if centre == 0:
        return None, 0
    if error == "relative":
        return [v / centre - 1 for v in exact], 0
    exponent = 0
    while Fraction(2) ** exponent > abs(centre):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(centre):
        exponent += 1
    return [v - centre for v in exact], exponent


def general_bits(z, exponent, stretch=0):
    """The largest k with every |Z| (1 + stretch) <= 2^(exponent - k)."""
    largest = max(abs(x) for x in z) * (1 + Fraction(stretch))
    k = 0
    while largest > Fraction(2) ** (exponent - k):
        k -= 1
    while largest <= Fraction(2) ** (exponent - k - 1):
        k += 1
    return k


def cnh_cost(n, probability, confidence):
    """The bits that CNH gives away for probability and confidence."""
    quantile = chi2(n - 1).ppf((1 - confidence) / 2)
    return math.log2((n - 1) / quantile) / 2 + math.log2(NormalDist().inv_cdf((probability + 1) / 2))


def bits(values, ieee, method, reference, error, probability, confidence):
    """Significant bits of one element that varies and is finite, from Z itself."""
    z, exponent = distances(values, ieee, reference, error)
    if z is None:
        return -math.inf
    if method == "general":
        return general_bits(z, exponent)
    middle = sum(z) / len(z)
    variance = sum((x - middle) ** 2 for x in z) / len(z)
    log2_variance = math.log2(variance.numerator) - math.log2(variance.denominator)
    return exponent - log2_variance / 2 - cnh_cost(len(z), probability, confidence)


def kind(values, ieee, method, reference, error, probability, confidence):
    """Class of one element by the rules in words, and its bits (NaN where it has none)."""
    if not any(math.isfinite(v) for v in values):
        return "undefined", math.nan
    seen = [*values, ieee]
    if any(math.isnan(v) for v in seen):
        return "nan", math.nan
    if any(math.isinf(v) for v in seen):
        return "inf", math.nan
    if all(v == 0 for v in seen):
        return "zero", math.nan
    if all(v == values[0] for v in values):
        return ("exact" if values[0] == ieee else "shifted"), math.nan
    result = bits(values, ieee, method, reference, error, probability, confidence)
    return ("noise" if result <= 0 else "number"), result


def layer(samples, ieee, *settings):
    """Bits (float64) and class codes (uint8) of a layer: samples (n, *shape), ieee (*shape), numpy."""
    flat = samples.reshape(len(samples), -1)
    found = [kind([float(v) for v in flat[:, i]], float(r), *settings) for i, r in enumerate(ieee.reshape(-1))]
    codes = np.array([ORDER.index(name) for name, _ in found], dtype=np.uint8)
    return np.array([b for _, b in found]).reshape(ieee.shape), codes.reshape(ieee.shape)
