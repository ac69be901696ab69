"""What does a worker get, and what does it leave? A unit that says all, and one sealed folder for each chunk."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mcaprobe.chunks import chunk_name, run_chunk
from mcaprobe.driving import out_of_memory
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.folders import disk_errors, verify
from mcaprobe.lanes import LockstepError
from mcaprobe.manifest import versions
from mcaprobe.metrics import Metric, load_metric
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.settings import Settings
from mcaprobe.storage import DamagedFile, read_tensors, write_tensors

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign

INPUT = "input.safetensors"
ONE_AT_A_TIME = Lock()  # hooks and the state of torch's random numbers are a whole process's


@dataclass(frozen=True)
class Job:
    """What all units of a campaign share; pickled by the engine.

    Attributes:
        model: `package.module:name`, or the module itself.
        name: Of the model, in manifests.
        model_sha256: Of the parameters that the driver has.
        metrics: `package.module:function`, or the functions themselves.
        folder: Current folder of the driver, from which modules are imported.
        circumstances: What the bits depend on, apart from the unit: versions, instruction set, kernels.
    """

    settings: Settings
    model: str | nn.Module
    name: str
    model_sha256: str
    metrics: tuple[str | Callable[[Any], Any], ...]
    folder: str
    circumstances: Mapping[str, Any]


@dataclass(frozen=True)
class SampleUnit:
    """One input, the blocks `first` .. `first + count - 1` of its samples, and the folder of chunks."""

    job: Job
    input: Path
    first: int
    count: int
    parent: Path


def job_of(campaign: Campaign, settings: Settings) -> Job:
    """Return what the workers of a campaign need; a model or metric that was asked for by name goes by its name."""
    model = campaign.model
    return Job(
        settings=settings,
        model=model.spec if model.by_name else model.module,
        name=model.spec,
        model_sha256=model.sha256,
        metrics=tuple(metric.spec if metric.by_name else metric.function for metric in campaign.metrics),
        folder=os.getcwd(),
        circumstances=circumstances(settings),
    )


def circumstances(settings: Settings) -> dict[str, Any]:
    """Return what else than the unit the bits depend on, on this machine."""
    own = settings.identity()
    return {
        "torch": torch.__version__,
        "mcaprobe": versions()["mcaprobe"],
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "route": own["route"],
        "kernels": own["kernels"],
    }


def ready(job: Job) -> tuple[nn.Module, list[Metric]]:
    """Return the model and the metrics in this worker.

    Raises:
        InputError: the model cannot be made here, or is another one.
        RunFailure: this machine would give other bits than the driver's.
    """
    if job.folder not in sys.path:
        sys.path.insert(0, job.folder)
    here = circumstances(job.settings)
    for name, expected in job.circumstances.items():
        if here[name] != expected:
            raise RunFailure(
                f"The worker on {socket.gethostname()} would give other bits: its {name} is {here[name]!r}, where the "
                f"campaign has {expected!r}."
            )
    model = (
        _named(job.model, job.settings.device, job.model_sha256)
        if isinstance(job.model, str)
        else load_model(job.model, job.settings.device).module
    )
    return model, [load_metric(metric) for metric in job.metrics]


@lru_cache(maxsize=1)
def _named(spec: str, device: str, sha256: str) -> nn.Module:
    """Return the model of a name; the units of one worker share it."""
    found = load_model(spec, device)
    if found.sha256 != sha256:
        raise InputError(
            f"The worker on {socket.gethostname()} builds another model {spec}: its parameters have the SHA-256 "
            f"{found.sha256[:12]}, where the campaign's have {sha256[:12]}. Save them to a file and load that."
        )
    return found.module


def write_input(folder: Path, campaign: Campaign) -> Path:
    """Write the input tensor where the workers read it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / INPUT, {"input": campaign.input.tensor})
    return folder / INPUT


def run_samples(unit: SampleUnit) -> None:
    """Run the samples of a unit in this worker and leave their chunk; what is there already is not done again.

    A model that cannot run its samples side by side leaves a chunk for each block, which needs the least memory.
    """
    with ONE_AT_A_TIME, disk_errors(unit.parent, lambda: "what other workers finished stays"):
        if whole(unit.parent / unit_name(unit.job.settings, unit.first, unit.count)):
            return
        model, metrics = ready(unit.job)
        settings = unit.job.settings
        x = read_tensors(unit.input)["input"].to(settings.device)
        try:
            run_chunk(settings, model, x, unit.first, unit.count, metrics, unit.parent, Observer())
        except LockstepError as error:
            if out_of_memory(error):  # not the model's fault: perhaps there is more another time
                raise MemoryError from error
            for first in range(unit.first, unit.first + unit.count):
                run_chunk(settings, model, x, first, 1, metrics, unit.parent, Observer(), str(error))


def unit_name(settings: Settings, first: int, count: int) -> str:
    """Return the name of the chunk of some blocks."""
    return chunk_name(settings.blocks()[first : first + count])


def whole(folder: Path) -> bool:
    """Return whether a sealed folder is there with the bytes that were written."""
    try:
        verify(folder)
    except DamagedFile:
        return False
    return True
