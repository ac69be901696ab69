"""How many bits do the deviations of an element leave, before probability and confidence are paid for?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import torch
from torch import Tensor

from mcaprobe.estimators import Combination, Error, Method, Reference, mantissa_bits
from mcaprobe.moments import Moments

COMBINATIONS: list[Combination] = list(product(get_args(Method), get_args(Reference), get_args(Error)))
# Bins of the scores, see Histogram.counts.
PER_BIT = 16
LOWEST = -8
# Raw scores reach the mantissa and half the logarithm of the number of samples; the last bin takes the rest.
HEADROOM = 16


def bin_count(dtype: torch.dtype) -> int:
    """Return how many bins the scores of a layer of this type have."""
    return (mantissa_bits(dtype) + HEADROOM - LOWEST) * PER_BIT


def raw_score(m: Moments, method: Method, reference: Reference, error: Error) -> Tensor:
    """Return the bits before shift(), float64: any real number, -inf where the reference is 0.

    CNH: -log2 std(Z), std with ddof 0 as the package. General: the largest integer k with all
    |Z| <= 2^-k, from the extremes; the package's number before its clip to [0, stored mantissa bits].
    Where an element does not vary, or saw NaN or infinity, the value means nothing: fixed_classes() tells.
    """
    return next(raw_scores(m, (method,), (reference,), (error,)))[1]


def raw_scores(
    m: Moments,
    methods: tuple[Method, ...] = get_args(Method),
    references: tuple[Reference, ...] = get_args(Reference),
    errors: tuple[Error, ...] = get_args(Error),
) -> Iterator[tuple[Combination, Tensor]]:
    """Yield (method, reference, error) and its raw_score(); logarithms are shared between combinations."""
    spread = log2_std(m) if "cnh" in methods else torch.empty(0)
    for reference in references:
        magnitude = (m.reference if reference == "ieee" else m.mean).double().abs()
        deviation = largest_deviation(m, reference) if "general" in methods else torch.empty(0)
        for error in errors:
            # std(X / reference - 1) = std(X) / |reference|: a difference of logarithms.
            if error == "absolute":
                scale = floor_log2(magnitude)
            elif "cnh" in methods:
                scale = torch.log2(magnitude)
            for method in methods:
                if method == "cnh":
                    bits = scale - spread
                elif error == "relative":
                    bits = -ceil_log2(deviation / magnitude)
                else:
                    bits = scale - ceil_log2(deviation)
                yield (method, reference, error), bits.masked_fill_(magnitude == 0, -torch.inf)


def log2_std(m: Moments) -> Tensor:
    """Return log2 of the standard deviation (ddof 0) of the samples, float64; -inf where they do not vary."""
    result = torch.log2(m.m2 / m.n).mul_(0.5)
    if m.reference.dtype == torch.float64:
        # M2 under- or overflows where deviations leave 1e-145..1e150: half the range bounds the std from
        # above.
        lost = ~((m.m2 >= 1e-290) & (m.m2 <= 1e300)) & (m.minimum < m.maximum)
        if bool(lost.any()):
            result[lost] = torch.log2(m.maximum[lost] / 2 - m.minimum[lost] / 2)
    return result


def largest_deviation(m: Moments, reference: Reference) -> Tensor:
    """Return the largest |X - reference| over the samples, float64."""
    low, high = m.minimum.double(), m.maximum.double()
    if reference == "ieee":
        return torch.maximum(high - m.reference, m.reference - low)
    origin = m.origin()
    if origin is not None:
        low, high = low - origin, high - origin
    return torch.maximum(high - m.offset, m.offset - low)


def floor_log2(x: Tensor) -> Tensor:
    """Return the exponent e with 2^e <= x < 2^(e+1), exactly, for float64 x > 0; 0 for 0, as the package."""
    return torch.frexp(x).exponent.double().sub_((x != 0).double())


def ceil_log2(x: Tensor) -> Tensor:
    """Return the smallest integer e with x <= 2^e, exactly, for finite x > 0 in float64; +inf for +inf."""
    fraction, exponent = torch.frexp(x)
    result = exponent.double().sub_((fraction == 0.5).double())
    return result.masked_fill_(torch.isinf(x), torch.inf)
