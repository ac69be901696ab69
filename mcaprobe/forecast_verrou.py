"""What will a campaign under Verrou take? One instrumented run where Verrou is there, else a published ratio."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mcaprobe.campaign import Campaign
from mcaprobe.errors import InputError
from mcaprobe.estimators import samples_needed, supported_probability
from mcaprobe.executors import Engine
from mcaprobe.forecast import MANY_SUBJECTS, MANY_WORKERS, Forecast
from mcaprobe.launchers import check_image, choose
from mcaprobe.loading import load_input
from mcaprobe.manifest import machine
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.planning import Needs, Survey, disk_needed, plan_processes
from mcaprobe.runs import Run
from mcaprobe.runs_under_verrou import UnderVerrou
from mcaprobe.settings import Settings
from mcaprobe.verrou import REFERENCE, runs_of

# Gonzalez Pepe, Akhaddar, Glatard and Chatelain (arXiv 2605.25991) on FastSurfer; single convolutions take more.
RATIO = 206.0
SOURCE = "published for FastSurfer (arXiv 2605.25991): 198 to 214 times a plain forward, up to 1216 for one convolution"


class _OneRun(UnderVerrou):
    """The IEEE baseline of a campaign alone: the same instrumented kernels, one process."""

    seconds = 0.0

    def measure(self, launcher: str) -> float:
        """Run it; return its seconds from the start of the process to its proof."""
        self.launcher = launcher
        samples = self._prepare()
        samples.runs = [REFERENCE]
        start = time.perf_counter()
        samples.run()
        return time.perf_counter() - start


def plan_verrou(
    model: str | nn.Module, x: Any, settings: Settings, input_options: Mapping[str, Any], subjects: int,
    probability: float, confidence: float, out: str | Path | None,
) -> Forecast:  # fmt: skip
    """Return what a campaign under Verrou will take; see `forecasting.plan`."""
    options = settings.verrou
    if options is None or not isinstance(model, str):
        raise InputError("Expected the model as package.module:function, since each sample under Verrou is a process.")
    loaded = load_model(model)
    campaign = Campaign(settings, loaded, load_input(x, loaded.module, input_options))
    seen = Run(campaign, Observer()).look()
    folder = Path(out or tempfile.gettempdir())
    needs, jobs = plan_processes(settings, seen, folder, options.jobs)
    with tempfile.TemporaryDirectory(prefix=".plan-") as short:
        try:
            launcher, why = choose(options), ""
            check_image(options, launcher, Path(short))
        except InputError as error:
            launcher, why = "", str(error)
        one = _OneRun(campaign, Path(short), Observer(), options, Engine()).measure(launcher) if launcher else 0.0
    if launcher:
        measured = f"one run under Verrou ({launcher}), the IEEE baseline of {len(seen.layers)} layers: {one:.3g} s"
    else:
        plain = _plain(loaded.module, campaign.input.tensor)
        one = RATIO * plain
        measured = f"a plain forward, 1 thread, n = 3, the median: {plain:.3g} s; nothing under Verrou: {why}"
    return _told(settings, seen, needs, jobs, one, measured, theoretical=not launcher, subjects=subjects,
                 wanted=(probability, confidence))  # fmt: skip


def _plain(module: nn.Module, x: Tensor) -> float:
    """Return the median seconds of three forwards on one thread, as a run under Verrou has one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        with torch.inference_mode():
            for _ in range(3):
                start = time.perf_counter()
                module(x)
                seconds.append(time.perf_counter() - start)
        return sorted(seconds)[1]
    finally:
        torch.set_num_threads(threads)


def _told(
    settings: Settings, seen: Survey, needs: Needs, jobs: int, one: float, measured: str, *, theoretical: bool,
    subjects: int, wanted: tuple[float, float],
) -> Forecast:  # fmt: skip
    probability, confidence = wanted
    runs = len(runs_of(settings.samples))
    subject = -(-runs // jobs) * one
    disk = disk_needed(settings, seen, 1)
    about = machine("cpu")
    extrapolated = [
        f"time: {runs} runs (n and two IEEE baselines), {jobs} at once, {-(-runs // jobs)} waves of {one:.3g} s; what "
        "follows the runs is not counted, nor that processes beside each other are slower",
        "memory and disk: from the live tensors of one plain forward; disk is an upper bound",
    ]
    if theoretical:
        extrapolated.insert(0, f"time of a run: {RATIO:g} times a plain forward; {SOURCE}")
    return Forecast(
        seconds=subjects * subject, memory=needs.memory, memory_of_worker=needs.memory // jobs, disk=subjects * disk,
        disk_at_most=(subjects - 1) * disk + needs.disk, subjects=subjects, samples=settings.samples, workers=jobs,
        executor="verrou", threads=1, spread=True, seconds_of_subject=subject,
        seconds_of_thousand=-(-MANY_SUBJECTS // MANY_WORKERS) * runs * one, probability=probability,
        confidence=confidence, samples_needed=samples_needed(probability, confidence),
        supported=supported_probability(settings.samples, confidence),
        measured=(f"{measured}; on {about['processor']} with {about['cores']} cores",),
        extrapolated=tuple(extrapolated), theoretical=theoretical, costs=None, shorts=(), machine=about,
    )  # fmt: skip
