"""What is measured: how often, on how many threads, on which network and operators?"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from analyses.benchmarks.cases import OPERATORS, Operator
from analyses.benchmarks.peak import peak
from analyses.benchmarks.rows import CAMPAIGN, MEMORY
from analyses.benchmarks.rows import OPERATORS as OPERATOR_PART


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Config:
    """What to measure.

    Args:
        parts: Among `rows.PARTS`.
        threads: Thread counts of the campaign; memory and the full width use the largest one, operators one thread.
        network: What `mcaprobe.run` takes as a model and `peak` as the text of one; likewise `x` and the input.
        subject: What the rows call the network on that input.
        seconds: How long an operator is called at a time, so that short calls can be timed.
        peak: Runs one job in a fresh process; see `peak.Job`.
    """

    parts: Sequence[str] = (CAMPAIGN, OPERATOR_PART, MEMORY)
    repetitions: int = 5
    threads: Sequence[int] = field(default_factory=lambda: tuple(dict.fromkeys((1, cores()))))
    samples: int = 10
    seed: int = 0
    network: str = "demo"
    x: str = "mni152"
    subject: str = "demo network, 24 filters, 256x256"
    operators: Sequence[Operator] = OPERATORS
    seconds: float = 0.1
    peak: Callable[[Any], dict[str, Any]] = peak
