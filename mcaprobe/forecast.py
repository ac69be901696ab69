"""How long will a campaign take, and how much memory and disk? Arithmetic on what short campaigns took."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mcaprobe.calibration import Calibration
from mcaprobe.outline import BY_PIECES
from mcaprobe.short_runs import Short

EVERY_WORKER_ONCE, EVERY_UNIT = "every worker once", "every unit"
MANY_SUBJECTS, MANY_WORKERS = 1000, 100  # always told beside what was asked


@dataclass(frozen=True, slots=True)
class Line:
    """A cost that grows with a count: `fixed + each * count`."""

    fixed: float
    each: float

    def __call__(self, count: float) -> float:
        return self.fixed + self.each * count

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """Return the line through the first and the last of (count, cost), rising and nowhere negative.

        Of points with one count it is the mean cost. Where noise makes the larger count cheaper, the cost of the larger
        one is taken for all; where it makes the fixed part negative, the cost is taken as proportional.
        """
        (low, first), (high, last) = points[0], points[-1]
        if low == high:
            return cls(sum(cost for _, cost in points) / len(points), 0.0)
        each = max(0.0, (last - first) / (high - low))
        return cls(last - each * high, each) if last >= each * high else cls(0.0, last / high)


def makespan(costs: Iterable[float], workers: int) -> float:
    """Return when the last of the units ends that are given, in order, to whichever worker is free first."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a campaign cost, from short campaigns.

    Attributes:
        start: Seconds of a process until the model, the input and the drawing library are there.
        begin: Seconds until the first unit is given out.
        unit: Seconds of a piece or chunk by its rounds.
        join: Seconds behind the units by the number of blocks or pieces.
        disk: Bytes of the finished run directory, by pieces, by samples where activations are kept, else the same for
            all.
        part: Bytes of the chunk of a block or of a piece, which are there until the end.
        crowding: How many times as long a unit takes beside the other workers of this machine.
    """

    start: float
    begin: float
    unit: Line
    join: Line
    disk: Line
    part: float
    crowding: float = 1.0

    @classmethod
    def of(cls, found: Calibration, crowding: float = 1.0) -> Costs:
        """Return the costs that a calibration found."""
        shorts = found.shorts

        def line(count: str, cost: str) -> Line:
            return Line.through([(getattr(short, count), getattr(short, cost)) for short in shorts])

        if found.planned.way == BY_PIECES:
            disk = line("merged", "disk")
        else:
            last = shorts[-1]  # no line through both: compressed maps vary more than few activations take
            each = last.kept / (last.samples + 1)
            disk = Line(last.disk - each * last.samples, each)
        begin = sum(short.begin for short in shorts) / len(shorts)
        part = shorts[-1].parts / max(1, shorts[-1].merged)
        start = found.start + found.loading + found.warming
        return cls(start, begin, line("rounds", "unit"), line("merged", "join"), disk, part, crowding)

    def seconds(self, units: Sequence[tuple[int, int]], merged: int, workers: int, starts: str | None) -> float:
        """Return the seconds of one campaign from the start of its process to its end.

        Args:
            units: (pieces or 1, rounds of each), in the order in which they are given out.
            workers: That run at once.
            starts: Whether EVERY_WORKER_ONCE or EVERY_UNIT starts a process; None: the campaign's own does the work.
        """
        each = self.start if starts == EVERY_UNIT else 0.0
        costs = [each + self.crowding * pieces * self.unit(rounds) for pieces, rounds in units]
        first = self.start if starts == EVERY_WORKER_ONCE else 0.0
        return self.start + self.begin + first + makespan(costs, workers) + self.join(merged)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a campaign will take; `str()` says it in sentences.

    Attributes:
        seconds: Wall clock of all subjects.
        memory: Peak of all its processes that run at once, in bytes; on many machines the sum over them.
        memory_of_worker: Of that, what one worker takes.
        disk: Bytes of the finished run directories of all subjects.
        disk_at_most: The same while the last of them runs, with chunks or pieces that are removed behind it.
        subjects, samples, workers: As asked; workers as many as can be busy.
        executor: Where the units run.
        threads: Of one worker.
        spread: Whether the units of one subject go to all workers; else each worker takes whole subjects.
        seconds_of_subject: Wall clock of one subject.
        seconds_of_thousand: Of MANY_SUBJECTS subjects on MANY_WORKERS workers, each of which takes whole subjects.
        probability, confidence: As asked.
        samples_needed: Samples without a failure that support them (General estimator); 59 for .95 and .95.
        supported: The probability that `samples` support at that confidence.
        measured: Sentences: what was run, where.
        extrapolated: Sentences: what follows from it by arithmetic, or is not known.
        theoretical: Whether no run stands behind the seconds but a published ratio.
        costs: What the parts cost; None under Verrou.
        shorts: The short campaigns.
        machine: Where it was measured.
    """

    seconds: float
    memory: int
    memory_of_worker: int
    disk: int
    disk_at_most: int
    subjects: int
    samples: int
    workers: int
    executor: str
    threads: int
    spread: bool
    seconds_of_subject: float
    seconds_of_thousand: float
    probability: float
    confidence: float
    samples_needed: int
    supported: float
    measured: tuple[str, ...]
    extrapolated: tuple[str, ...]
    theoretical: bool
    costs: Costs | None
    shorts: tuple[Short, ...]
    machine: dict[str, Any]

    def __str__(self) -> str:
        from mcaprobe.forecast_words import sentences

        return "\n".join(sentences(self))
