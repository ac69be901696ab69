"""Naive twins of the table row and the channel map: loops over elements whose bits and classes are given."""

import math
import statistics

CLASSES = ["number", "noise", "zero", "exact", "shifted", "nan", "inf", "undefined"]


def percentile(values, share):
    """Linear between ranks."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def row(bits, codes):
    """Mean, 5th percentile and shares of flat lists of bits and class codes."""
    numbers = [b for b, c in zip(bits, codes, strict=True) if c == 0]
    result = {
        "bits_mean": math.fsum(numbers) / len(numbers) if numbers else None,
        "bits_p05": percentile(numbers, 0.05) if numbers else None,
    }
    for code, name in enumerate(CLASSES):
        result[f"share_{name}"] = list(codes).count(code) / len(codes) if len(codes) else None
    return result


def position(bits, codes):
    """Median bits, majority class and shares of the channels at one position."""
    numbers = [b for b, c in zip(bits, codes, strict=True) if c == 0]
    shares = [list(codes).count(code) / len(codes) for code in range(8)]
    majority = 0
    for code in range(8):
        if shares[code] > 0.5:
            majority = code
    if not numbers:
        majority = shares.index(max(shares))
    return (statistics.median(numbers) if numbers else math.nan), majority, shares
