"""What does the user ask of an estimate of significant bits, and what do n samples support?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

import scipy.stats
import torch

from mcaprobe.errors import InputError

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
                    f"Expected {name} to be one of {', '.join(get_args(choice))}, got {getattr(self, name)!r}."
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
    """Return the mantissa bits of a floating dtype with the implicit one: 24 for float32, 53 for float64."""
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
