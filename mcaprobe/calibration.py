"""What does a little of a campaign cost on this machine? Short ones are really run, in processes of their own."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mcaprobe.campaign import Campaign
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import Engine, Processes
from mcaprobe.loading import load
from mcaprobe.memory import base_memory, peak_memory
from mcaprobe.metrics import load_metric
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.outline import BY_CHUNKS, DIRECT, Outline, outline, sketches
from mcaprobe.planning import Survey, driver_memory
from mcaprobe.runs import Run
from mcaprobe.settings import Settings
from mcaprobe.short_runs import Short, run_short


@dataclass(frozen=True)
class Task:
    """What a process calibrates; pickled.

    Attributes:
        model, x, input_options, slices, patches, metrics: As `mcaprobe.run` takes them.
        settings: Of one worker of the campaign that is planned.
        engine: That its units would go to.
        folder: Of the short campaigns, which are removed again; the process makes it.
        joined: Whether what follows the units is run as well.
    """

    model: str | nn.Module
    x: Tensor | np.ndarray | str | Path
    input_options: Mapping[str, Any]
    slices: str | None
    patches: str | None
    metrics: tuple[str | Callable[[Any], Any], ...]
    settings: Settings
    engine: Engine
    folder: Path
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a process found.

    Attributes:
        start: Seconds until Python, torch and mcaprobe were there.
        loading: Seconds for the model, the input and the drawing library.
        warming: Seconds that the first campaign of a process takes longer than the same one again.
        shorts: What the short campaigns took, in a process that is warm.
        planned: What the campaign that is planned is made of.
        layers: Recorded layers.
        shape: Of the input, or of a piece.
        idle: Bytes of a process that has model and input and runs nothing.
        driver: Predicted peak of the process that puts together what the units leave, in bytes.
        peak: Measured peak of this process, in bytes.
        growth: Bytes by which a worker of the planned campaign is predicted to take more than the largest short one.
    """

    start: float
    loading: float
    warming: float
    shorts: tuple[Short, ...]
    planned: Outline
    layers: int
    shape: tuple[int, ...]
    idle: int
    driver: int
    peak: int
    growth: int


def calibrate(task: Task, submitted: float) -> Calibration:
    """Load model and input and run the short campaigns in this process.

    Args:
        submitted: Clock time (seconds since 1970) at which the process was asked for.
    Raises:
        InputError: bad input, or the campaign that is planned does not fit the memory.
        RunFailure: the model raised.
    """
    start, began = time.time() - submitted, time.perf_counter()
    import mcaprobe.plots  # noqa: F401  (a campaign loads it once, for its picture)

    model = load_model(task.model, task.settings.device)
    x = load(task.x, model.module, task.input_options, task.settings.device, task.slices, task.patches)
    campaign = Campaign(task.settings, model, x, [load_metric(metric) for metric in task.metrics])
    loading = time.perf_counter() - began
    seen = Run(campaign, Observer()).look()
    pieces = None if x.whole is None else len(x.whole.numbers)
    task.folder.mkdir(parents=True)
    planned, growth = _outlined(task, seen, pieces)
    idle, driver = base_memory(task.settings.device), driver_memory(task.settings, seen)
    cold, way = _shorts(campaign, planned, task, first=True)
    if way == BY_CHUNKS and planned.way == DIRECT:  # the model cannot run its samples side by side
        planned, growth = _outlined(task, seen, pieces, alone=True)
        cold, way = _shorts(campaign, planned, task, first=True)
    shorts, way = _shorts(campaign, planned, task)
    warming = max(0.0, cold[0].seconds - shorts[0].seconds)
    return Calibration(
        start, loading, warming, shorts, planned, len(seen.layers), tuple(x.tensor.shape), idle, driver,
        peak_memory(task.settings.device), growth,
    )  # fmt: skip


def _outlined(task: Task, seen: Survey, pieces: int | None, alone: bool = False) -> tuple[Outline, int]:
    """Return what is planned, and by how many bytes its worker is predicted to exceed that of the largest short one."""
    planned = outline(task.settings, task.engine, seen, pieces, task.folder, alone)
    largest = sketches(task.settings, planned)[-1].settings
    short = outline(largest, Engine(), seen, pieces, task.folder, alone)
    return planned, max(0, planned.memory - short.memory)


def _shorts(
    campaign: Campaign, planned: Outline, task: Task, first: bool = False
) -> tuple[tuple[Short, ...], str]:
    """Run the short campaigns, or the first one alone; return what they took and the way that they went in the end."""
    found: list[Short] = []
    way = planned.way
    for number, sketch in enumerate(sketches(task.settings, planned)[: 1 if first else None]):
        short, way = run_short(campaign, sketch, planned.way, task.folder / str(number), task.joined)
        found.append(short)
    return tuple(found), way


def in_processes(task: Task, at_once: int) -> tuple[Calibration, float]:
    """Calibrate in a fresh process; then as many at once as would share this machine.

    Returns:
        What the process found (`peak` of one that runs units only, where other workers do that), and how many times as
        long a unit takes while `at_once` of them run side by side.
    Raises:
        InputError, RunFailure: as `calibrate`; or the model cannot be handed to another process.
    """
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected a model and metrics that another process can make, best by name as package.module:function: "
            f"{error}."
        ) from error
    first = _together([task])[0]
    if at_once == 1:
        return first, 1.0
    crowd = [replace(task, folder=task.folder / str(number), joined=False) for number in range(at_once)]
    others = _together(crowd)
    crowding = sum(found.shorts[-1].unit for found in others) / at_once / first.shorts[-1].unit
    if not task.engine.local:
        first = replace(first, peak=max(found.peak for found in others))
    return first, crowding


def _together(tasks: list[Task]) -> list[Calibration]:
    with Processes(len(tasks)) as processes:
        futures = [processes.submit(calibrate, task, time.time()) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BrokenExecutor as error:
            raise RunFailure(
                "The process that calibrates ended before its results: it ran out of memory, or a script called "
                "mcaprobe.plan outside of `if __name__ == '__main__':`."
            ) from error
