"""The experiments of the paper by name: which networks, which methods, which data, which tables."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from analyses import trained
from analyses.benchmarks.config import cores
from analyses.brains import TEST, Brain, load_brain
from analyses.experiments import (
    classification,
    denoising,
    goals,
    profiling,
    segmentation,
    sizes,
    spared_work,
    wall_clock,
)
from analyses.experiments.comparison import learnings as comparison_tasks
from analyses.experiments.comparison import networks as comparison
from analyses.experiments.comparison import rows as comparison_rows
from analyses.experiments.comparison import trained as comparison_trained
from analyses.experiments.counting import Row, Tables
from analyses.experiments.images import load_images
from analyses.methods import AGGRESSIVE, CONSERVATIVE, HYBRID, Method
from analyses.mnist_data import load_digits
from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.published import load_checkpoint
from analyses.models.widening import widened, width_of
from analyses.paths import DATA

UNIFORM = (Method(None, 0.5, uniform=True), Method("conservative", 0.5, uniform=True))
SQUEEZENET = DATA / "models" / "squeezenet_dc" / "squeezenet_v1.0_state_dict.pt"
PUBLISHED_WIDTH = 71
Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A piece of an experiment, whose rows are kept.

    Attributes:
        key: Unique among the parts.
        identity: What its rows depend on, beside the checkpoint; JSON values.
        checkpoint: The file of its network; None where the part trains its own.
        compute: Makes the tables.
    """

    key: str
    identity: dict[str, Any]
    checkpoint: Path | None
    compute: Callable[[Say], Tables]


@dataclass(frozen=True)
class Options:
    """What a command may ask of an experiment: less than all of it.

    Attributes:
        threads: Of torch; `timing` measures each of them.
        filters: Widths of the network that `timing` measures; none: as trained, and as published.
        whole: Subjects of which `timing` takes every slice without a break.
        steps: That `compare` trains each network for; None: as many as its budget has.
        task: Of `compare`; networks: rows of it, none: all; untimed: whether it leaves the wall clock out.
    """

    plane: str = "axial"
    subjects: tuple[str, ...] = TEST
    every: int = 1
    images: int = 10_000
    threads: tuple[int, ...] = (1,)
    repetitions: int = 3
    filters: tuple[int, ...] = ()
    whole: int = 1
    steps: int | None = None
    task: str = "heads"
    networks: tuple[str, ...] = ()
    untimed: bool = False


def conservative(options: Options) -> Iterator[Part]:
    """Yield the parts of section 6.2: FastSurfer's and FONDUE's structure with conservative NaNs; uniform windows."""
    yield from _brains(options, (*CONSERVATIVE, *UNIFORM), CONSERVATIVE)


def aggressive(options: Options) -> Iterator[Part]:
    """Yield the parts of section 6.3: the same with aggressive NaNs, and with the hybrid of both, which is ours."""
    yield from _brains(options, (*AGGRESSIVE, *HYBRID), AGGRESSIVE)


def mnist(options: Options) -> Iterator[Part]:
    """Yield the parts of Figure 9a: thresholds, both approaches; poolings before the ReLU; trained through NaNs."""
    for network, pool_first in (("mnist", False), ("mnist", True), ("mnist_nan", False)):
        model, path = trained.load_digits_network(network, pool_first)
        name = f"{network}, pooling before ReLU" if pool_first else network
        config = classification.Config(name, classification.mnist_methods(), images=options.images)
        yield _classify(name, model, path, config, lambda: load_digits("test"))


def xception(options: Options) -> Iterator[Part]:
    """Yield the parts of Figure 9b: the tolerance, on a small Xception for digits and on SqueezeNet for photographs."""
    methods = classification.sweep_methods()
    model, path = trained.load_digits_network("separable")
    config = classification.Config("separable", methods, images=min(2000, options.images), batch=100)
    yield _classify("separable", model, path, config, lambda: load_digits("test"))
    config = classification.Config("SqueezeNet", methods, images=options.images, batch=20)
    yield _classify("SqueezeNet", load_checkpoint(SQUEEZENET), SQUEEZENET, config, load_images)


def precision(options: Options) -> Iterator[Part]:
    """Yield the parts on half precision: the digit classifiers in three formats."""
    methods = tuple(Method("aggressive", t, fill=fill) for fill in classification.FILLS for t in (1.0, 0.5))
    formats = tuple(classification.FORMATS)
    for network in ("mnist", "mnist_nan"):
        model, path = trained.load_digits_network(network)
        config = classification.Config(network, methods, formats, images=min(2000, options.images))
        yield _classify(network, model, path, config, lambda: load_digits("test"))


def timing(options: Options) -> Iterator[Part]:
    """Yield the parts of the wall clock end to end: what is computed, how long it takes, where the time goes."""
    trained_here, path = trained.load_structures(options.plane)
    assert isinstance(trained_here, FastSurferVINN)
    width = width_of(trained_here)
    for filters in dict.fromkeys(options.filters or (width, max(width, PUBLISHED_WIDTH))):
        network = trained_here if filters == width else widened(trained_here, filters)
        how = "trained here" if filters == width else f"widened from {width} (same function)"
        yield from _timed(f"{filters} filters, {how}", filters, network, path, options)


def sizes_of_papers(options: Options) -> Iterator[Part]:
    """Yield the one part of the figures about size of the other systems' papers."""
    yield Part("sizes", {}, None, lambda say: sizes.run())


def learning_of(options: Options) -> comparison.Learning:
    """Return the training that `compare` asks for."""
    learning = comparison_tasks.LEARNINGS[options.task]
    if options.steps is None:
        return learning
    return replace(learning, budget=replace(learning.budget, steps=options.steps))


def config_of(options: Options) -> comparison_rows.Config:
    """Return what decides the rows that `compare` asks for."""
    return comparison_rows.Config(learning_of(options), threads=options.threads, repetitions=options.repetitions)


def compare(options: Options) -> Iterator[Part]:
    """Yield the parts of the comparison of all ways to be small, two a row; each network is trained once and kept."""
    yield from compared(config_of(options), options.networks, options.untimed)


def trainings(options: Options) -> dict[str, Any]:
    """Return how each network of the comparison that is kept came about, by its family."""
    trained_here = comparison_trained.Trained(learning_of(options))
    return {name: trained_here.record(name) for name in comparison.FAMILIES if trained_here.path(name).is_file()}


def compared(config: comparison_rows.Config, names: Sequence[str] = (), untimed: bool = False) -> Iterator[Part]:
    """Yield the parts of the comparison with one configuration.

    Args:
        names: Of the rows; none: all.
        untimed: Whether the wall clock is left out.
    """
    made: list[comparison_trained.Trained] = []
    chosen = [comparison.entry(name) for name in names] or comparison.ENTRIES

    def part(what: str, measure: comparison_rows.Measure, name: str) -> Part:
        def compute(say: Say) -> Tables:
            if not made:
                made.append(comparison_trained.Trained(config.learning, say=say))
            return measure(name, config, made[0], say)

        key = f"{what}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"
        return Part(key, {"config": asdict(config), "network": name}, None, compute)

    yield from (part("right", comparison_rows.right, entry.name) for entry in chosen)
    if not untimed:
        yield from (part("fast", comparison_rows.fast, entry.name) for entry in chosen)


def _timed(name: str, filters: int, network: nn.Module, path: Path, options: Options) -> Iterator[Part]:
    batches: dict[int, int] = {}  # by thread count, found on the first subject that is not kept

    def part(what: str, subject: str, threads: int) -> Part:
        config = wall_clock.Config(options.plane, every=options.every, repetitions=options.repetitions, threads=threads)

        def compute(say: Say) -> Tables:
            rows = _measured(what, network, load_brain(subject), config, batches, say)
            return {"times" if what == "whole" else what: [{"network": name, **row} for row in rows]}

        key = f"{what}-{filters}-{options.plane}-{subject}-{threads}"
        return Part(key, {"config": asdict(config), "filters": filters}, path, compute)

    for subject in options.subjects:
        yield part("work", subject, max(options.threads))
        yield from (part("times", subject, threads) for threads in options.threads)
    for subject in options.subjects[: options.whole]:
        yield from (part("whole", subject, threads) for threads in options.threads)
    yield part("profile", options.subjects[0], 1)


def _measured(
    what: str, network: nn.Module, brain: Brain, config: wall_clock.Config, batches: dict[int, int], say: Say
) -> list[Row]:
    if what == "work":
        return spared_work.subject(network, brain, config, say)
    if what == "profile":
        return profiling.subject(network, brain, config, say)
    if config.threads not in batches:
        batches[config.threads] = wall_clock.fastest_batch(network, brain, config)
    measure = wall_clock.every_slice if what == "whole" else wall_clock.subject
    return measure(network, brain, config, batches[config.threads], say)


TIMED_THREADS = tuple(n for n in (1, 2) if n <= cores())
# What is made of all parts of an experiment together.
SUMMARIES: dict[str, Callable[[Tables], Tables]] = {"timing": goals.summary}
STUDIES: dict[str, Callable[[Options], Iterator[Part]]] = {
    "conservative": conservative, "aggressive": aggressive, "mnist": mnist, "xception": xception,
    "precision": precision, "timing": timing, "compare": compare,
    "sizes": sizes_of_papers,
}  # fmt: skip


def _brains(options: Options, segmenting: Sequence[Method], denoised: Sequence[Method]) -> Iterator[Part]:
    network, path = trained.load_structures(options.plane)
    for subject in options.subjects:
        config = segmentation.Config(options.plane, tuple(segmenting), (subject,), every=options.every)
        yield _brain(f"segmentation-{options.plane}-{subject}", "segmentation", network, path, config)
    denoiser, path = trained.load_denoiser()
    for subject in options.subjects:
        few = denoising.Config(options.plane, tuple(denoised), (subject,), every=4 * options.every)
        yield _brain(f"denoising-{options.plane}-{subject}", "denoising", denoiser, path, few)


def _brain(key: str, table: str, network: nn.Module, path: Path, config: Any) -> Part:
    run: Callable[..., Tables] = segmentation.run if table == "segmentation" else denoising.run

    def compute(say: Say) -> Tables:
        found = run(network, config, load_brain, say)
        return {f"{table}_{name}": [{"plane": config.plane, **row} for row in rows] for name, rows in found.items()}

    return Part(key, {"config": asdict(config)}, path, compute)


def _classify(
    key: str, model: nn.Module, path: Path, config: classification.Config, load: Callable[[], classification.Labelled]
) -> Part:
    def compute(say: Say) -> Tables:
        rows: list[Row] = classification.run(model, load(), config, say)
        return {"layers": rows}

    return Part(key.replace(", ", "-").replace(" ", "-"), {"config": asdict(config)}, path, compute)
