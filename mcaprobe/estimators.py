"""How many bits of an element are significant, and what kind of element is it?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

import scipy.stats
import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.moments import Moments

Method = Literal["cnh", "general"]
Reference = Literal["ieee", "mean"]
Error = Literal["relative", "absolute"]
Convention = Literal["classes", "published"]
Combination = tuple[Method, Reference, Error]


def _expect_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"Expected {name} strictly between 0 and 1, got {value}.")


class Class(IntEnum):
    """The kind of an element; the codes are those of files and pictures, not the order of precedence.

    First match wins: UNDEFINED (no sample is finite), NAN (seen in any sample or in the IEEE run), INF
    (likewise), ZERO (every sample and the IEEE run are 0), EXACT (all samples equal the IEEE run), SHIFTED
    (all samples are equal, the IEEE run differs), NOISE (significant bits <= 0, or reference 0 with a
    non-zero sample), else NUMBER. All but the last two are facts about the samples, whatever the estimator.
    """

    NUMBER = 0
    NOISE = 1
    ZERO = 2
    EXACT = 3
    SHIFTED = 4
    NAN = 5
    INF = 6
    UNDEFINED = 7


@dataclass(frozen=True, slots=True)
class Estimator:
    """How significant bits are computed (Sohier et al. 2021).

    Attributes:
        method: `cnh` (centred normality hypothesis) or `general` (no assumption about the distribution).
        reference: The IEEE run or the mean of the samples.
        error: Z = X / reference - 1, or Z = X - reference. As in the package significantdigits, absolute
            bits are counted from the exponent of the reference: a constant floor(log2 |reference|) is
            added.
        probability: The stated bits are significant with this probability. `general` has none of its own: n
            samples support supported_probability(n, confidence).
        confidence: of the statement above.
        convention: `classes` gives NaN bits to elements that are neither NUMBER nor NOISE. `published` is
            what the package's numbers were published as: an element without any deviation has all stored
            mantissa bits (less the shift of CNH), shifted elements are scored by their largest |Z|, zero
            elements have 0 bits and count as noise.
    """

    method: Method = "cnh"
    reference: Reference = "ieee"
    error: Error = "relative"
    probability: float = 0.95
    confidence: float = 0.95
    convention: Convention = "classes"

    def __post_init__(self) -> None:
        choices = {"method": Method, "reference": Reference, "error": Error, "convention": Convention}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                raise InputError(
                    f"Expected {name} to be one of {', '.join(get_args(choice))}, "
                    f"got {getattr(self, name)!r}."
                )
        for name in ("probability", "confidence"):
            _expect_share(name, getattr(self, name))

    def __str__(self) -> str:
        published = ", published convention" if self.convention == "published" else ""
        return (
            f"{self.method} {self.error} to {self.reference}, p = {self.probability:g}, "
            f"confidence = {self.confidence:g}{published}"
        )


DEFAULT = Estimator()


def stored_bits(dtype: torch.dtype) -> int:
    """Return the stored mantissa bits of a floating dtype: 23 for float32, 52 for float64."""
    return round(-math.log2(torch.finfo(dtype).eps))


def mantissa_bits(dtype: torch.dtype) -> int:
    """Return the mantissa bits of a floating dtype, the implicit one included: 24 for float32, 53 for float64."""
    return stored_bits(dtype) + 1


def supported_probability(n: int, confidence: float = 0.95) -> float:
    """Return the largest probability that n samples without a failure support (General): (1 - c)^(1/n)."""
    if n < 1:
        raise InputError(f"Expected at least 1 sample, got {n}.")
    _expect_share("confidence", confidence)
    return float((1 - confidence) ** (1 / n))


def samples_needed(probability: float, confidence: float = 0.95) -> int:
    """Return how many samples without a failure support p: ceil(ln(1 - c) / ln p), 59 for .95 and .95."""
    _expect_share("probability", probability)
    _expect_share("confidence", confidence)
    return math.ceil(math.log(1 - confidence) / math.log(probability))


def shift(n: int, estimator: Estimator) -> float:
    """Return the bits that probability and confidence cost: 1.84 at n = 10 for CNH, 0 for General.

    1/2 log2((n - 1) / chi2) + log2(Phi^-1((p + 1) / 2)), chi2 the (1 - c)/2 quantile with n - 1 degrees of
    freedom.
    """
    if n < 2:
        raise InputError(f"Expected at least 2 samples to estimate significant bits, got {n}.")
    if estimator.method == "general":
        return 0.0
    chi2 = scipy.stats.chi2.ppf((1 - estimator.confidence) / 2, n - 1)
    normal = scipy.stats.norm.ppf((estimator.probability + 1) / 2)
    return float(0.5 * math.log2((n - 1) / chi2) + math.log2(normal))


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


def snr_below_one(m: Moments) -> Tensor:
    """Return where the samples vary with std >= |mean| (ddof 0), bool; False where one was not finite."""
    if m.n < 2:
        raise InputError(f"Expected at least 2 samples for a signal-to-noise ratio, got {m.n}.")
    below = (m.m2 / m.n >= m.mean * m.mean) & (m.minimum < m.maximum)
    return below if m.all_finite else below & (m.nans + m.infs == 0)


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
