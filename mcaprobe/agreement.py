"""Do two masks mark the same elements?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mcaprobe.errors import InputError


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many elements the masks of A and B mark; a ratio without any element below it is None, neither 0 nor 1.

    Attributes:
        a, b: Elements marked by the mask of A, of B.
        both: Elements marked by both.
    """

    a: int
    b: int
    both: int

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> Agreement:
        """Count two bool masks of one shape."""
        if a.shape != b.shape:
            raise InputError(f"Expected masks of one shape, got {tuple(a.shape)} and {tuple(b.shape)}.")
        return cls(int(a.sum()), int(b.sum()), int((a & b).sum()))

    @property
    def dice(self) -> float | None:
        """2 |A and B| / (|A| + |B|) (Dice 1945)."""
        return _share(2 * self.both, self.a + self.b)

    @property
    def precision(self) -> float | None:
        """|A and B| / |A|: the share of what A marks that B marks too."""
        return _share(self.both, self.a)

    @property
    def recall(self) -> float | None:
        """|A and B| / |B|: the share of what B marks that A marks too."""
        return _share(self.both, self.b)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
