"""How much noise has each sum of products of an operator call? Taken once, from the unperturbed run, for all samples.

Squares of partial sums cost several passes of the stock kernel; between samples they differ by the noise itself. A run
without an unperturbed one beside it takes its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Size, Tensor


@dataclass(frozen=True, slots=True)
class Deviation:
    """Standard deviation of the roundings of each sum but the last, and how many of its products are not 0."""

    std: Tensor
    terms: Tensor


@dataclass(slots=True)
class Deviations:
    """The deviations of one operator call, in the order in which its rule asks for them.

    Attributes:
        recorded: Those of the unperturbed run; None while a run takes its own.
        recording: This is the unperturbed run; what its rule returns is of no use.
        each: Applies a function to runs of products, side by side where there are threads.
    """

    recorded: list[Deviation] | None = None
    recording: bool = False
    each: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = map
    _asked: int = field(default=0)

    def record(self, found: Deviation) -> Deviation:
        """Keep what the unperturbed run tells of the next sum of products, and return it."""
        self.recorded = [*(self.recorded or []), found]
        return found

    def of(self, shape: Size, compute: Callable[[], Deviation]) -> Deviation:
        """Return the deviation of the next sum of products, of this shape."""
        place = self._asked
        self._asked += 1
        if self.recorded is None or place >= len(self.recorded) or self.recorded[place].std.shape != shape:
            return compute()
        return self.recorded[place]
