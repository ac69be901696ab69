"""How much noise has each sum of products of an operator call? Taken once, from the unperturbed run, for all samples.

Squares of partial sums cost several passes of the stock kernel; between samples they differ by the noise itself. A run
without an unperturbed one beside it takes its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

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
    """

    recorded: list[Deviation] | None = None
    recording: bool = False
    _asked: int = field(default=0)

    def of(self, shape: Size, compute: Callable[[], Deviation]) -> Deviation:
        """Return the deviation of the next sum of products, of this shape."""
        if self.recording:
            found = compute()
            self.recorded = [*(self.recorded or []), found]
            return found
        place = self._asked
        self._asked += 1
        if self.recorded is None or place >= len(self.recorded) or self.recorded[place].std.shape != shape:
            return compute()
        return self.recorded[place]
