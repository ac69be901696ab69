"""How well does one mask foretell another? From four counts, and what chance alone would give."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from torch import Tensor

from mcaprobe.errors import InputError


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of elements; sums of them are counts again. A ratio without anything below it is None, neither 0 nor 1.

    Attributes:
        both: Marked by the prediction and by the truth.
        predicted: Marked by the prediction.
        true: Marked by the truth.
        elements: All.
    """

    both: int = 0
    predicted: int = 0
    true: int = 0
    elements: int = 0

    @classmethod
    def of(cls, prediction: Tensor, truth: Tensor) -> Confusion:
        """Count two bool tensors of one shape."""
        if prediction.shape != truth.shape:
            raise InputError(f"Expected masks of one shape, got {tuple(prediction.shape)} and {tuple(truth.shape)}.")
        both = int((prediction & truth).sum())
        return cls(both, int(prediction.sum()), int(truth.sum()), truth.numel())

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.both + other.both, self.predicted + other.predicted, self.true + other.true,
            self.elements + other.elements,
        )  # fmt: skip

    @property
    def dice(self) -> float | None:
        """2 |P and T| / (|P| + |T|) (Dice 1945)."""
        return _ratio(2 * self.both, self.predicted + self.true)

    @property
    def iou(self) -> float | None:
        """|P and T| / |P or T| (Jaccard 1901)."""
        return _ratio(self.both, self.predicted + self.true - self.both)

    @property
    def precision(self) -> float | None:
        """|P and T| / |P|."""
        return _ratio(self.both, self.predicted)

    @property
    def recall(self) -> float | None:
        """|P and T| / |T|."""
        return _ratio(self.both, self.true)

    @property
    def mcc(self) -> float | None:
        """Matthews correlation coefficient (Matthews 1975); 0 by chance."""
        p, t, n = self.predicted, self.true, self.elements
        below = p * t * (n - p) * (n - t)
        return (self.both * n - p * t) / sqrt(below) if below else None

    @property
    def chance_dice(self) -> float | None:
        """The Dice that a random prediction of the same size is expected to have: |P and T| is then |P| |T| / n."""
        return _ratio(2 * self.predicted * self.true, self.elements * (self.predicted + self.true))

    @property
    def chance_precision(self) -> float | None:
        """Likewise its precision: the share of what is true."""
        return _ratio(self.true, self.elements)

    @property
    def columns(self) -> dict[str, int | float | None]:
        """Counts and ratios, as a row has them."""
        return {
            "elements": self.elements, "predicted": self.predicted, "true": self.true, "both": self.both,
            "dice": self.dice, "iou": self.iou, "precision": self.precision, "recall": self.recall, "mcc": self.mcc,
            "chance_dice": self.chance_dice, "chance_precision": self.chance_precision,
        }  # fmt: skip


def never_seen(once: int, twice: int, samples: int) -> float:
    """Return how many units at least were not seen in any sample, though they can be (Chao 1987, incidence data).

    Args:
        once, twice: Units that were seen in exactly one, exactly two of the samples.
    """
    share = (samples - 1) / samples
    if twice:
        return share * once**2 / (2 * twice)
    return share * once * (once - 1) / 2


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
