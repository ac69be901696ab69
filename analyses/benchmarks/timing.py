"""How long do calls take, timed turn by turn with what they are held against?

A machine slows down and speeds up within minutes: a ratio means something where both of its sides are timed in turn.
"""

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

Call = Callable[[], Any]
UNSTEADY = 1.5  # stock's slowest over its fastest time: above it the machine did something else


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one call: the times of each repetition, in order."""

    turns: tuple[tuple[float, ...], ...]

    @property
    def all(self) -> list[float]:
        """Return every time of every repetition."""
        return [seconds for turn in self.turns for seconds in turn]

    @property
    def median(self) -> float:
        """Return the median of all times."""
        return median(self.all)

    def over(self, count: int) -> "Times":
        """Return the times of one of `count` calls that were timed together."""
        return Times(tuple(tuple(seconds / count for seconds in turn) for turn in self.turns))

    def ratio(self, to: "Times") -> float:
        """Return the quotient of the two medians."""
        return self.median / to.median

    def ratios(self, to: "Times") -> list[float]:
        """Return the quotient of the medians of each repetition."""
        return [median(a) / median(b) for a, b in zip(self.turns, to.turns, strict=True)]


def interleave(
    stock: Mapping[str, Call], groups: Iterable[Mapping[str, Call]], repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Times]:  # fmt: skip
    """Time each call once a repetition, and the stock calls before, between and after the groups of calls.

    Returns:
        The times of every call by its name; those of a stock call have one more a repetition than there are groups.
    """
    groups = list(groups)
    names = [*stock, *(name for group in groups for name in group)]
    turns: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for repetition in range(repetitions):
        gc.collect()  # what earlier repetitions left is not collected within a call
        found: dict[str, list[float]] = {name: [] for name in names}
        for calls in (stock, *(part for group in groups for part in (group, stock))):
            for name, call in calls.items():
                progress(f"repetition {repetition + 1} of {repetitions}: {name}")
                found[name].append(seconds_of(call))
        for name, times in found.items():
            turns[name].append(tuple(times))
    return {name: Times(tuple(times)) for name, times in turns.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(call: Call) -> float:
    """Return the wall clock of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def calls_within(call: Call, seconds: float) -> int:
    """Return how many calls take about so long, at least 1: short calls are timed many at once."""
    call()
    return max(1, math.ceil(seconds / max(seconds_of(call), 1e-7)))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest value."""
    return min(values), max(values)
