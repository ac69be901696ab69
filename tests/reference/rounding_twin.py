"""Which numbers can a perturbed rounding give, and how often? Exact rational arithmetic, one number at a time."""

from fractions import Fraction

import numpy as np

MANTISSA = {np.float32: 24, np.float64: 53}


def exact(x) -> Fraction:
    """Return a finite floating-point number as the rational that it is."""
    return Fraction(float(x)) if not isinstance(x, Fraction) else x


def neighbours(q: Fraction, dtype) -> tuple:
    """Return the numbers of `dtype` just below and above q, both q itself where it is one of them."""
    largest = exact(np.finfo(dtype).max)
    if q > largest:
        return np.finfo(dtype).max, dtype(np.inf)
    if q < -largest:
        return dtype(-np.inf), np.finfo(dtype).min
    guess = dtype(float(q)) if abs(q) <= largest else np.finfo(dtype).max
    if not np.isfinite(guess):
        guess = np.copysign(np.finfo(dtype).max, guess)
    while exact(guess) > q:
        guess = np.nextafter(guess, dtype(-np.inf))
    while True:
        with np.errstate(over="ignore"):
            above = np.nextafter(guess, dtype(np.inf))
        if not np.isfinite(above) or exact(above) > q:
            break
        guess = above
    return (guess, guess) if exact(guess) == q else (guess, np.nextafter(guess, dtype(np.inf)))


def nearest(q: Fraction, dtype):
    """Return q rounded to nearest, ties to even."""
    low, high = neighbours(q, dtype)
    if low == high:
        return low
    last = np.finfo(dtype).max
    if np.isinf(high) or np.isinf(low):  # IEEE 754: overflow from half an ulp above the largest number on
        half = exact(last) - exact(np.nextafter(last, dtype(0)))
        beyond = abs(q) >= exact(last) + half / 2
        return np.copysign(dtype(np.inf) if beyond else last, dtype(1 if q > 0 else -1))
    below, above = q - exact(low), exact(high) - q
    if below != above:
        return low if below < above else high
    even = np.array([low]).view(np.int32 if dtype is np.float32 else np.int64)[0] % 2 == 0
    return low if even else high


def exponent(q: Fraction) -> int:
    """Return floor(log2 |q|) + 1."""
    q, e = abs(q), 0
    while q >= 1:
        q, e = q / 2, e + 1
    while q < Fraction(1, 2):
        q, e = q * 2, e - 1
    return e


def outcomes(q: Fraction, dtype, mode: str, bits: int | None = None) -> dict:
    """Return {number: probability} of rounding the exact, finite result q to `dtype`."""
    low, high = neighbours(q, dtype)
    if mode == "up_down":
        middle = nearest(q, dtype)
        if middle == 0:
            return {middle: Fraction(1)}
        return {np.nextafter(middle, dtype(side)): Fraction(1, 2) for side in (-np.inf, np.inf)}
    if mode in ("random", "nearness"):
        if low == high:
            return {low: Fraction(1)}
        up = Fraction(1, 2) if mode == "random" else (q - exact(low)) / (exact(high) - exact(low))
        return {low: 1 - up, high: up}
    return _parker(q, dtype, bits or MANTISSA[dtype])


def _parker(q: Fraction, dtype, bits: int) -> dict:
    """q + 2^(e - t) xi rounded to nearest; unchanged where t bits hold q."""
    if q == 0 or ((q / Fraction(2) ** (exponent(q) - bits)).denominator == 1 and nearest(q, dtype) == q):
        return {nearest(q, dtype): Fraction(1)}
    scale = Fraction(2) ** (exponent(q) - bits)
    left, right = q - scale / 2, q + scale / 2
    chances = {}
    v = nearest(left, dtype)
    while True:
        after = np.nextafter(v, dtype(np.inf))
        end = right if np.isinf(after) else min(right, (exact(v) + exact(after)) / 2)
        if end > left:
            chances[v] = (end - left) / scale
            left = end
        if left >= right:
            return chances
        v = after
