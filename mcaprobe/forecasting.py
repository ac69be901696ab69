"""What will a campaign take? `mcaprobe.plan` runs a little of it, for the rest it reckons, and says which is which."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mcaprobe.api import Globs, as_globs
from mcaprobe.calibration import Calibration, Task, in_processes
from mcaprobe.checks import check_counts
from mcaprobe.errors import InputError
from mcaprobe.estimators import Estimator, samples_needed, supported_probability
from mcaprobe.executors import LOCAL, PROCESSES, SLURM, Engine
from mcaprobe.forecast import EVERY_UNIT, EVERY_WORKER_ONCE, MANY_SUBJECTS, MANY_WORKERS, Costs, Forecast
from mcaprobe.manifest import machine
from mcaprobe.observer import Observer
from mcaprobe.outline import BY_CHUNKS, BY_PIECES, DIRECT
from mcaprobe.routes import AUTO
from mcaprobe.runs_on_engines import settings_of_workers
from mcaprobe.settings import BLOCK, Settings, parse_bytes
from mcaprobe.verrou import Verrou

_SHAPE = re.compile(r"\d+(x\d+)+")


def plan(
    model: str | nn.Module,
    x: Tensor | np.ndarray | str | Path,
    *,
    samples: int = 10,
    subjects: int = 1,
    workers: int = 1,
    executor: str | None = None,
    executor_options: Mapping[str, Any] | None = None,
    probability: float = 0.95,
    confidence: float = 0.95,
    mode: str = "random",
    seed: int = 0,
    precision: int | None = None,
    route: str = AUTO,
    out: str | Path | None = None,
    layers: Globs = "*",
    keep_moments: Globs = (),
    keep_samples: Globs = (),
    metrics: Sequence[str | Callable[[Any], Any]] = (),
    input_options: Mapping[str, Any] | None = None,
    slices: str | None = None,
    patches: str | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    block: int = BLOCK,
    chunk: int | None = None,
    device: str = "cpu",
    verrou: Verrou | None = None,
    observer: Observer | None = None,
) -> Forecast:
    """Predict time, memory and disk of `mcaprobe run` from short campaigns that are really run, in fresh processes.

    What is not listed is as `mcaprobe.run` has it. A script calls it below `if __name__ == "__main__":`, since the
    processes import it again.

    Args:
        x: An image, a tensor, or its shape such as `1x1x256x256`, for which numbers are made up: they do not change
            what a campaign costs.
        subjects: Inputs like this one. As many as workers or more: each worker takes whole subjects, in a call of
            `mcaprobe run` of its own; fewer: one after another, each on all workers.
        workers: That are busy at once.
        executor: Where the units of a subject run; None: local for one worker, processes for as many as this machine
            has processors, else slurm, whose workers are taken to be like this machine with the threads of a task.
        probability, confidence: For which the number of samples is told.
        out: Where the run directories would be; short campaigns are written beside it, so that the disk is the same.
            None: the folder of temporary files.
        verrou: Plan a campaign under Verrou: one instrumented run where it is there, else a published ratio.
    Raises:
        InputError: bad input, or the campaign does not fit the memory.
        RunFailure: the model raised, or a process ended.
    """
    check_counts(samples, seed)
    for name, count in (("subject", subjects), ("worker", workers)):
        if count < 1:
            raise InputError(f"Expected at least 1 {name}, got {count}.")
    needed = samples_needed(probability, confidence)
    settings = Settings(
        samples=samples, mode=mode, precision=precision, seed=seed, route=route, block=block, layers=as_globs(layers),
        keep_moments=as_globs(keep_moments), keep_samples=as_globs(keep_samples), estimator=Estimator(), device=device,
        threads=threads, memory=parse_bytes(memory) if isinstance(memory, str) else memory, chunk=chunk, verrou=verrou,
    )  # fmt: skip
    x = _made_up(x)
    if verrou is not None:
        from mcaprobe.forecast_verrou import plan_verrou

        if slices is not None or patches is not None or executor is not None or workers > 1:
            raise InputError("A campaign under Verrou has processes of its own (jobs): no pieces, workers or executor.")
        return plan_verrou(model, x, settings, input_options or {}, subjects, probability, confidence, out)
    watch = observer or Observer()
    whole = _Asked(subjects, workers, _engine(executor, workers, executor_options or {}))
    settings = settings_of_workers(settings, whole.engine)
    watch.say("Short campaigns are run to see what this one would cost.")
    with tempfile.TemporaryDirectory(dir=_beside(out), prefix=".plan-") as folder:
        task = Task(
            model, x, input_options or {}, slices, patches, tuple(metrics), settings,
            whole.engine if whole.spread else Engine(), Path(folder) / "short",
        )  # fmt: skip
        found, crowding = in_processes(task, whole.beside_each_other)
    return _forecast(whole, settings, found, crowding, (probability, confidence, needed))


@dataclass(frozen=True)
class _Asked:
    """Subjects and workers, and where the units run."""

    subjects: int
    workers: int
    engine: Engine

    @property
    def spread(self) -> bool:
        """Whether a subject's units go to all workers."""
        return not self.engine.local and (self.subjects == 1 or self.subjects < self.workers)

    @property
    def beside_each_other(self) -> int:
        """Workers that share this machine."""
        return min(self.workers, len(os.sched_getaffinity(0))) if self.engine.kind == PROCESSES else 1

    @property
    def busy(self) -> int:
        """Workers that get anywhere at once: of processes not more than there are processors."""
        return self.beside_each_other if self.engine.kind == PROCESSES else self.workers


def _engine(executor: str | None, workers: int, options: Mapping[str, Any]) -> Engine:
    if executor is None:
        here = PROCESSES if workers <= len(os.sched_getaffinity(0)) else SLURM
        executor = LOCAL if workers == 1 and not options else here
    return Engine(executor, workers, options)


def _made_up(x: Any) -> Any:
    """Return numbers of the shape that a text such as 1x1x256x256 names; anything else as it is."""
    if not (isinstance(x, str) and _SHAPE.fullmatch(x)) or Path(x).exists():
        return x
    return torch.rand([int(edge) for edge in x.split("x")], generator=torch.Generator().manual_seed(0))


def _beside(out: str | Path | None) -> Path | None:
    """Return the nearest folder that is there, where the run directory would be made; None for the system's."""
    if out is None:
        return None
    path = Path(out).absolute().parent
    while not path.is_dir():
        path = path.parent
    return path


def _forecast(
    asked: _Asked, settings: Settings, found: Calibration, crowding: float, wanted: tuple[float, float, int]
) -> Forecast:
    costs = Costs.of(found, crowding)
    planned = found.planned
    units = [(unit.pieces, unit.rounds) for unit in planned.units]
    starts = None
    if asked.spread:
        starts = EVERY_UNIT if asked.engine.kind == SLURM else EVERY_WORKER_ONCE
    one = costs.seconds(units, planned.merged, asked.busy if asked.spread else 1, starts)
    turns = asked.subjects if asked.spread else -(-asked.subjects // asked.busy)
    worker = found.peak + found.growth
    at_once = min(asked.busy, len(units) if asked.spread else asked.subjects)
    memory = max(at_once * worker + found.idle, found.driver) if asked.spread else at_once * worker
    disk = costs.disk(planned.merged if planned.way == BY_PIECES else settings.samples)
    parts = costs.part * planned.merged * (1 if asked.spread else at_once)
    alone = replace(costs, crowding=1.0)
    thousand = -(-MANY_SUBJECTS // MANY_WORKERS) * alone.seconds(units, planned.merged, 1, None)
    probability, confidence, needed = wanted
    return Forecast(
        seconds=turns * one, memory=memory, memory_of_worker=worker,
        disk=round(asked.subjects * disk), disk_at_most=round(asked.subjects * disk + parts), subjects=asked.subjects,
        samples=settings.samples, workers=asked.workers, executor=asked.engine.name, threads=settings.thread_count(),
        spread=asked.spread, seconds_of_subject=one, seconds_of_thousand=thousand, probability=probability,
        confidence=confidence, samples_needed=needed, supported=supported_probability(settings.samples, confidence),
        measured=_measured(found, asked, settings, crowding), extrapolated=_extrapolated(found, asked, costs),
        theoretical=False, costs=costs, shorts=found.shorts, machine=machine(settings.device),
    )  # fmt: skip


def _measured(found: Calibration, asked: _Asked, settings: Settings, crowding: float) -> tuple[str, ...]:
    about = machine(settings.device)
    ways = {DIRECT: "in one pass", BY_CHUNKS: "by chunks of samples", BY_PIECES: "by pieces"}
    pieces = found.planned.way == BY_PIECES
    many = ", then ".join(
        f"n = {short.samples}" + f" on {short.merged} piece{'s' * (short.merged > 1)}" * pieces
        for short in found.shorts
    )
    lines = [
        f"short campaigns {ways[found.planned.way]} of {found.layers} layers, {many}, input {list(found.shape)}, "
        f"emulated, mode {settings.mode}, route {settings.taken_route()}, {settings.thread_count()} threads, on "
        f"{about['processor']} with {about['cores']} cores ({about['torch_cpu_capability']})",
        f"start {found.start + found.loading + found.warming:.3g} s; seconds of a unit "
        + ", ".join(f"{short.unit:.3g} ({short.rounds} passes one after another)" for short in found.shorts)
        + "; after the units " + ", ".join(f"{short.join:.3g} s" for short in found.shorts),
    ]  # fmt: skip
    if asked.beside_each_other > 1:
        lines.append(f"a unit takes {crowding:.3g} times as long with {asked.beside_each_other} processes side by side")
    if found.planned.alone:
        lines.append("the samples run one at a time, since this model cannot run them side by side")
    return tuple(lines)


def _extrapolated(found: Calibration, asked: _Asked, costs: Costs) -> tuple[str, ...]:
    units = found.planned.units
    what = "1 unit" if len(units) == 1 else f"{len(units)} units"
    lines = [
        f"time: a subject is {what} of up to {max(unit.rounds * unit.pieces for unit in units)} passes one after "
        f"another, {costs.unit.fixed:.3g} s + {costs.unit.each:.3g} s a pass, given to whichever worker is free; then "
        f"{costs.join.fixed:.3g} s + {costs.join.each:.3g} s for each of {found.planned.merged} parts",
        "memory: the peak of the short campaigns, and what more samples at once add by the live tensors of one plain "
        "forward",
        "disk: from the short campaigns' files; compressed maps of other images are somewhat larger or smaller",
    ]
    if asked.engine.kind == SLURM or not (asked.engine.local or asked.engine.kind == PROCESSES):
        lines.append(f"workers of {asked.engine.name} are taken to be like this machine; waiting in a queue and a "
                     "slower shared disk are not counted")  # fmt: skip
    if asked.busy < asked.workers:
        lines.append(f"{asked.workers} processes share {asked.busy} processors: they are no faster than {asked.busy}")
    return tuple(lines)
