"""Do two masks mark the same elements, and would they by chance?"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from torch import Tensor

from mcaprobe.errors import InputError


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many elements the masks of A and B mark; sums of such counts are counts again.

    Where A is a prediction and B the truth the scores have their usual meaning. A ratio without any element below it
    is None, neither 0 nor 1.

    Attributes:
        a, b: Elements marked by the mask of A, of B.
        both: Elements marked by both.
        elements: All.
    """

    a: int = 0
    b: int = 0
    both: int = 0
    elements: int = 0

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Agreement:
        """Count two bool masks of one shape; InputError where they are of two."""
        if a.shape != b.shape:
            raise InputError(f"Expected masks of one shape, got {tuple(a.shape)} and {tuple(b.shape)}.")
        return cls(int(a.sum()), int(b.sum()), int((a & b).sum()), b.numel())

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.a + other.a, self.b + other.b, self.both + other.both, self.elements + other.elements
        )  # fmt: skip

    @property
    def dice(self) -> float | None:
        """2 |A and B| / (|A| + |B|) (Dice 1945)."""
        return _share(2 * self.both, self.a + self.b)

    @property
    def iou(self) -> float | None:
        """|A and B| / |A or B| (Jaccard 1901)."""
        return _share(self.both, self.a + self.b - self.both)

    @property
    def precision(self) -> float | None:
        """|A and B| / |A|: the share of what A marks that B marks too."""
        return _share(self.both, self.a)

    @property
    def recall(self) -> float | None:
        """|A and B| / |B|: the share of what B marks that A marks too."""
        return _share(self.both, self.b)

    @property
    def mcc(self) -> float | None:
        """Matthews correlation coefficient (Matthews 1975); 0 by chance."""
        a, b, n = self.a, self.b, self.elements
        below = a * b * (n - a) * (n - b)
        return (self.both * n - a * b) / sqrt(below) if below else None

    @property
    def chance_dice(self) -> float | None:
        """The Dice that a random mask of A's size is expected to have: |A and B| is then |A| |B| / n."""
        return _share(2 * self.a * self.b, self.elements * (self.a + self.b))

    @property
    def chance_precision(self) -> float | None:
        """Likewise its precision: the share of the elements that B marks."""
        return _share(self.b, self.elements)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
