"""How much faster is one campaign with more workers? Wall clock of the same slices, with the same bits each time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import mcaprobe
from analyses.benchmarks.rows import Row
from mcaprobe.errors import RunFailure
from mcaprobe.executors import PROCESSES, Engine
from mcaprobe.table import TABLE

COLUMNS = ("executor", "workers", "threads", "slices", "samples", "layers", "repetitions", "seconds", "low", "high",
           "speed_up", "efficiency")  # fmt: skip
ABOUT = (
    "seconds: median wall clock of mcaprobe.run, low and high its extremes over the repetitions, with the start of the "
    "worker processes, the survey of the model and the assembly of the volume by the driver; speed_up: seconds of the "
    "first row over these; efficiency: speed_up over the ratio of the workers; threads: of each worker; all runs of a "
    "file have the same table of results, bit for bit"
)


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        workers: Numbers of worker processes, the first of which the others are compared with.
        slices: Of the input, as of `mcaprobe run`.
        threads: Of each worker.
    """

    workers: Sequence[int] = (1, 2, 4)
    repetitions: int = 3
    model: str = "demo"
    x: str = "mni152"
    slices: str = "70:84"
    samples: int = 10
    layers: Sequence[str] = ("*pool", ":output*")
    threads: int = 1
    seed: int = 0
    folder: Path | None = None


def run(setting: Setting, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return a row for each number of workers; repetitions take turns.

    Raises:
        RunFailure: two runs have different results.
    """
    times: dict[int, list[float]] = {count: [] for count in setting.workers}
    tables: set[bytes] = set()
    for turn in range(setting.repetitions):
        for count in setting.workers:
            progress(f"{count} workers, repetition {turn + 1} of {setting.repetitions}")
            seconds, table = once(setting, count)
            times[count].append(seconds)
            tables.add(table)
            if len(tables) > 1:
                raise RunFailure(f"The results with {count} workers differ from those of the runs before.")
    base = setting.workers[0]
    return [_row(setting, count, times[count], median(times[base]) / median(times[count]), base) for count in times]


def once(setting: Setting, count: int) -> tuple[float, bytes]:
    """Return the wall clock of one campaign, and its table."""
    out = Path(tempfile.mkdtemp(prefix="workers-", dir=setting.folder)) / "run"
    try:
        start = time.perf_counter()
        mcaprobe.run(setting.model, setting.x, out=out, slices=setting.slices, samples=setting.samples,
                     layers=setting.layers, threads=setting.threads, seed=setting.seed,
                     executor=Engine(PROCESSES, count))  # fmt: skip
        return time.perf_counter() - start, (out / TABLE).read_bytes()
    finally:
        shutil.rmtree(out.parent)


def _row(setting: Setting, count: int, times: list[float], speed_up: float, base: int) -> Row:
    return {"executor": PROCESSES, "workers": count, "threads": setting.threads, "slices": setting.slices,
            "samples": setting.samples, "layers": " ".join(setting.layers), "repetitions": len(times),
            "seconds": median(times), "low": min(times), "high": max(times), "speed_up": speed_up,
            "efficiency": speed_up * base / count}  # fmt: skip
