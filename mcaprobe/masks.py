"""Which elements of a layer are unstable?  Four criteria, and the elements of which none of them says anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import Class, Estimator
from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import CHUNK, Moments
from mcaprobe.significance import fixed_classes, score, snr_below

UNSTABLE = "unstable"


class Criterion(Protocol):
    """What marks an element.

    Attributes:
        on_indices: Whether it judges decisions (indices of a pooling, labels) instead of floating activations.
    """

    on_indices: ClassVar[bool]

    @property
    def option(self) -> str:
        """The option of `mcaprobe mask` that asks for it, without the dashes."""

    @property
    def threshold(self) -> float | str:
        """What the option was given."""

    @property
    def unit(self) -> str | None:
        """Unit of the threshold; None for a class."""

    @property
    def label(self) -> str:
        """What marked elements are, as one word of letters."""


class Elementwise(Criterion, Protocol):
    """A criterion on floating activations."""

    def judge(self, m: Moments, bits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return which elements are marked and which undefined, bool, disjoint; bits and codes are score()'s."""


@dataclass(frozen=True, slots=True)
class Unstable:
    """Class noise, or fewer than `below` significant bits; with below = 0 the class noise alone.

    Elements of the class noise have 0 bits or fewer (-inf where the reference is 0 and a sample is not). Elements that
    are zero, exact or shifted in all samples, and those that were NaN or infinite, have no bits: they are undefined,
    and not marked.

    Attributes:
        below: Threshold in bits, finite and at least 0.
    """

    below: float = 1.0
    on_indices: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.below) and self.below >= 0):
            raise InputError(f"Expected a threshold of at least 0 bits, got {self.below}.")

    def __str__(self) -> str:
        bits = "bit" if self.below == 1 else "bits"
        return "class noise" if self.below == 0 else f"class noise, or fewer than {self.below:g} significant {bits}"

    @property
    def option(self) -> str:
        return "below"

    @property
    def threshold(self) -> float:
        return self.below

    @property
    def unit(self) -> str:
        return "bits"

    @property
    def label(self) -> str:
        return UNSTABLE

    def judge(self, m: Moments, bits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        return (codes == Class.NOISE) | (bits < self.below), without_digits(codes)

    def mask(self, m: Moments, estimator: Estimator) -> Tensor:
        """Return where the layer is unstable, bool, its shape."""
        return judged(self, m, estimator)[0]


@dataclass(frozen=True, slots=True)
class OfClass:
    """One class of elements. For noise, elements without digits are undefined; every other class is a plain fact.

    Attributes:
        kind: The class.
    """

    kind: Class
    on_indices: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"class {self.threshold}"

    @property
    def option(self) -> str:
        return "class"

    @property
    def threshold(self) -> str:
        return self.kind.name.lower()

    @property
    def unit(self) -> None:
        return None

    @property
    def label(self) -> str:
        return UNSTABLE if self.kind == Class.NOISE else self.threshold

    def judge(self, m: Moments, bits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        silent = without_digits(codes) if self.kind == Class.NOISE else torch.zeros_like(codes, dtype=torch.bool)
        return codes == self.kind, silent


@dataclass(frozen=True, slots=True)
class SnrBelow:
    """Samples that vary with `ratio` times their standard deviation (ddof 0) at least |mean|; others are undefined.

    Attributes:
        ratio: Signal-to-noise ratio |mean| / std, finite and above 0.
    """

    ratio: float = 1.0
    on_indices: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ratio) and self.ratio > 0):
            raise InputError(f"Expected a signal-to-noise ratio above 0, got {self.ratio}.")

    def __str__(self) -> str:
        times = "" if self.ratio == 1 else f"{self.ratio:g} times "
        return f"{times}the standard deviation of the samples is at least the size of their mean"

    @property
    def option(self) -> str:
        return "snr-below"

    @property
    def threshold(self) -> float:
        return self.ratio

    @property
    def unit(self) -> str:
        return "|mean| / standard deviation (ddof 0)"

    @property
    def label(self) -> str:
        return UNSTABLE

    def judge(self, m: Moments, bits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        # Not the codes: the published convention calls elements noise that do not vary.
        undefined = fixed_classes(m) != Class.NUMBER
        return snr_below(m, self.ratio) & ~undefined, undefined


@dataclass(frozen=True, slots=True)
class IndexChange:
    """Decisions (indices of a pooling, labels) that differ from the IEEE run's in at least `rate` of the samples.

    Attributes:
        rate: Above 0, at most 1.
    """

    rate: float = 0.05
    on_indices: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"Expected an index change rate above 0 and at most 1, got {self.rate}.")

    def __str__(self) -> str:
        return f"the decision differs from the IEEE run's in at least {100 * self.rate:g} % of the samples"

    @property
    def option(self) -> str:
        return "index-change-rate"

    @property
    def threshold(self) -> float:
        return self.rate

    @property
    def unit(self) -> str:
        return "share of the samples"

    @property
    def label(self) -> str:
        return UNSTABLE

    def mask(self, m: IndexMoments) -> Tensor:
        """Return which decisions are marked, bool, their shape; none is undefined."""
        return m.change_rate() >= self.rate

    def least(self, n: int) -> int:
        """Return how many of n samples have to change at least."""
        return next(count for count in range(1, n + 1) if count / n >= self.rate)


def without_digits(codes: Tensor) -> Tensor:
    """Return which elements have no significant bits: neither of class number nor of class noise."""
    return (codes != Class.NUMBER) & (codes != Class.NOISE)


def judged(criterion: Elementwise, m: Moments, estimator: Estimator) -> tuple[Tensor, Tensor, Tensor]:
    """Return which elements are marked, which are undefined (bool) and their classes (uint8), in the layer's shape."""
    device = m.reference.device
    marked, undefined = (torch.zeros(m.shape, dtype=torch.bool, device=device) for _ in range(2))
    kinds = torch.zeros(m.shape, dtype=torch.uint8, device=device)
    # Chunks: the float64 temporaries of the scores stay small beside the layer.
    for place in torch.arange(marked.numel(), device=device).split(CHUNK):
        part = m.take(place)
        bits, codes = score(part, estimator)
        marked.view(-1)[place], undefined.view(-1)[place] = criterion.judge(part, bits, codes)
        kinds.view(-1)[place] = codes
    return marked, undefined, kinds
