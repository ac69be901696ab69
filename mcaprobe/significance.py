"""How many bits of an element are significant, and what kind of element is it?"""

from __future__ import annotations

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import DEFAULT, Class, Estimator, shift, stored_bits
from mcaprobe.moments import Moments
from mcaprobe.scores import ceil_log2, floor_log2, largest_deviation, log2_std, raw_score


def fixed_classes(m: Moments) -> Tensor:
    """Return the classes that no estimator changes, uint8; NUMBER stands for NUMBER or NOISE."""
    equal = m.minimum == m.maximum
    exact = equal & (m.minimum == m.reference)
    codes = torch.where(equal, int(Class.SHIFTED), int(Class.NUMBER)).to(torch.uint8)
    codes[exact] = Class.EXACT
    codes[exact & (m.reference == 0)] = Class.ZERO
    if not (m.all_finite and bool(torch.isfinite(m.reference).all())):
        codes[(m.infs > 0) | torch.isinf(m.reference)] = Class.INF
        codes[(m.nans > 0) | torch.isnan(m.reference)] = Class.NAN
        codes[m.nans + m.infs == m.n] = Class.UNDEFINED
    return codes


def score(m: Moments, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """Return significant_bits() and classes() of the elements together, at the price of one of them."""
    cost = shift(m.n, estimator)
    codes = fixed_classes(m)
    bits = raw_score(m, estimator.method, estimator.reference, estimator.error)
    bits.sub_(cost)
    if estimator.convention == "published":
        return _published(m, estimator, bits, codes, cost)
    varies = codes == Class.NUMBER
    # Not (> 0): bits are NaN where a float64 mean overflowed, and nothing is known to be significant there.
    codes[varies & ~(bits > 0)] = Class.NOISE
    return bits.masked_fill_(~varies, torch.nan), codes


def significant_bits(m: Moments, estimator: Estimator = DEFAULT) -> Tensor:
    """Return the significant bits of each element, float64, unclipped; NaN unless it is NUMBER or NOISE.

    -inf where the reference is 0 and a sample is not. The convention `published` clips General to
    [0, stored mantissa bits] and gives bits to the other finite elements as well (see Estimator).
    """
    return score(m, estimator)[0]


def classes(m: Moments, estimator: Estimator = DEFAULT) -> Tensor:
    """Return the Class of each element, uint8."""
    return score(m, estimator)[1]


def snr_below(m: Moments, ratio: float) -> Tensor:
    """Return where the samples vary with ratio * std >= |mean| (ddof 0), bool; False where one was not finite."""
    if m.n < 2:
        raise InputError(f"Expected at least 2 samples for a signal-to-noise ratio, got {m.n}.")
    below = (m.m2 / m.n * ratio**2 >= m.mean * m.mean) & (m.minimum < m.maximum)
    return below if m.all_finite else below & (m.nans + m.infs == 0)


def snr_below_one(m: Moments) -> Tensor:
    """Return where the samples vary with std >= |mean| (ddof 0), bool; False where one was not finite."""
    return snr_below(m, 1.0)


def _published(m: Moments, e: Estimator, bits: Tensor, codes: Tensor, cost: float) -> tuple[Tensor, Tensor]:
    """Return bits and classes as published: every finite element has bits, and is NOISE if they are <= 0."""
    most = stored_bits(m.reference.dtype)
    centre = (m.reference if e.reference == "ieee" else m.mean).double()
    deviation = largest_deviation(m, e.reference)
    if e.error == "absolute":
        # The package leaves the exponent of a reference 0 out of the absolute error.
        plain = -log2_std(m) if e.method == "cnh" else -ceil_log2(deviation)
        bits = torch.where(centre == 0, plain - cost, bits)
    still = m.minimum == m.maximum
    if e.method == "cnh":
        scale = torch.log2(centre.abs()) if e.error == "relative" else floor_log2(centre.abs())
        bits = torch.where(still, scale - torch.log2(deviation) - cost, bits)
    bits = torch.where(still & (deviation == 0), most - cost, bits)
    if e.method == "general":
        bits = bits.clamp(0, most)
    bits[codes == Class.ZERO] = 0.0
    finite = codes < Class.NAN
    codes = torch.where(finite, (bits <= 0).to(torch.uint8) * int(Class.NOISE), codes)
    return bits.masked_fill_(~finite, torch.nan), codes
