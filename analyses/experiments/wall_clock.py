"""How long does a volume take, from its voxels to its labels, torch's own network and ours timed turn by turn?

Some slices with brain stand for all of them and one empty slice for all empty ones. On each slice all ways run in turn,
and the order rotates from slice to slice: when the machine slows down, it slows down all of them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn

from analyses import provenance
from analyses.benchmarks.timing import Call, Times, interleave, seconds_of, threads
from analyses.brains import Brain
from analyses.experiments import segmentation
from analyses.experiments.counting import BRAIN, WHOLE, Row
from analyses.experiments.ways import BEST, METHODS, VOLUMES, Box, Way, box_of, name_of, segment, segment_contiguous
from analyses.methods import Method
from analyses.preprocessing.planes import slices_of

EVERY_SLICE = "whole volume, every slice"
BATCHES = (1, 2, 4)
CLEARLY = 1.02
BLOCK = 16  # slices
Say = Callable[[str], None]
Found = dict[str, Times]
Extremes = tuple[float, float, float]  # median, fastest, slowest


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows, beside the network."""

    plane: str = "axial"
    methods: tuple[Method | None, ...] = METHODS
    every: int = 1  # of the slices that hold a voxel of the brain
    repetitions: int = 3
    threads: int = 1
    batches: tuple[int, ...] = BATCHES


@dataclass(frozen=True, slots=True)
class Plan:
    """The slices of a subject: those that hold brain, how many, and those that hold none."""

    timed: list[int]
    brain: int
    empty: list[int]

    @property
    def scale(self) -> float:
        """How many slices with brain a timed one stands for."""
        return self.brain / len(self.timed)


def plan_of(brain: Brain, plane: str, every: int) -> Plan:
    """Return which slices are timed: the middle one of each `every` slices with brain."""
    seen, empty = segmentation.indices_of(brain, segmentation.Config(plane, ()))
    return Plan(seen[every // 2 :: every] or [seen[len(seen) // 2]], len(seen), empty)


def converted(network: nn.Module, methods: Sequence[Method | None]) -> dict[Method | None, nn.Module]:
    """Return the network in channels last for each method; all share its parameters."""
    stock = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {method: method.convert(stock) if method else stock for method in methods}


@torch.inference_mode()
def fastest_batch(network: nn.Module, brain: Brain, config: Config) -> int:
    """Return with how many slices at once torch's own network is fastest, by slice; every way then gets as many.

    The fewest within 2 % of the fastest: less than that is chance.
    """
    stock = converted(network, [None])[None]
    middle = plan_of(brain, config.plane, 1).timed
    middle = middle[len(middle) // 2 :]
    calls = {n: partial(segment, stock, brain.image, config.plane, middle[:n]) for n in config.batches}
    with threads(config.threads):
        calls[config.batches[0]]()
        seconds = {n: min(seconds_of(call) for _ in range(2)) / n for n, call in calls.items()}
    return min(n for n in seconds if seconds[n] <= CLEARLY * min(seconds.values()))


@torch.inference_mode()
def subject(network: nn.Module, brain: Brain, config: Config, batch: int, progress: Say = lambda _: None) -> list[Row]:
    """Return a row for each way and scope of one subject.

    Args:
        network: In eval mode.
        batch: Slices at once.
    """
    plan, models = plan_of(brain, config.plane, config.every), converted(network, config.methods)
    about = _about(brain, config.threads, batch) | {
        "repetitions": config.repetitions, "slices_timed": len(plan.timed), "brain_slices": plan.brain,
        "empty_slices": len(plan.empty),
    }  # fmt: skip
    with threads(config.threads):
        inside, outside, once = _by_turns(models, brain, config, plan, batch, progress)
    rows = []
    for volume, method in product(VOLUMES, config.methods):
        way = Way(method, *volume)
        key = _key(method, way.cropped)
        seconds = _seconds(way, [times[key] for times in inside], plan.scale, once)
        rows.append(about | way.columns | {"scope": BRAIN} | _cells(seconds))
        if outside and not way.skipping:
            seconds = _sum([seconds, extremes(outside[key].over(batch))], [1, len(plan.empty)])
        rows.append(about | way.columns | {"scope": WHOLE} | _cells(seconds))
    return rows


def _by_turns(
    models: Mapping[Method | None, nn.Module], brain: Brain, config: Config, plan: Plan, batch: int, progress: Say
) -> tuple[list[Found], Found, Found]:
    """Return the times of each batch of slices with brain, of a batch of empty ones, and of what is done once."""
    box = box_of(brain.image, config.plane)
    groups = [plan.timed[i : i + batch] for i in range(0, len(plan.timed), batch)]
    empty = [plan.empty[:1] * batch] if plan.empty else []
    warm(_calls(models, brain, config.plane, groups[0], box))
    found = []
    for k, group in enumerate([*groups, *empty]):
        progress(f"{brain.name}: slice {group[0]}, {config.threads} threads")
        calls = _rotated(_calls(models, brain, config.plane, group, box), k)
        found.append(interleave({}, [calls], config.repetitions))
    once = interleave({}, [_searches(brain, config.plane)], config.repetitions)
    return found[: len(groups)], found[-1] if empty else {}, once


@torch.inference_mode()
def every_slice(
    network: nn.Module, brain: Brain, config: Config, batch: int, progress: Say = lambda _: None
) -> list[Row]:
    """Return rows of a whole volume without a sample: every slice, torch and conservative NaNs with uniform windows.

    Blocks of slices alternate between the two, and so does who begins.
    """
    models = converted(network, [None, BEST])
    count = len(slices_of(brain.image, config.plane))
    about = _about(brain, config.threads, batch) | {"repetitions": 1, "slices_timed": count, "scope": EVERY_SLICE}
    seconds = dict.fromkeys(models, 0.0)
    labels: dict[Method | None, list[Tensor]] = {method: [] for method in models}
    with threads(config.threads):
        warm(_calls(models, brain, config.plane, [count // 2], None))
        for k, first in enumerate(range(0, count, BLOCK)):
            block = range(first, min(count, first + BLOCK))
            for method in list(models)[:: -1 if k % 2 else 1]:
                progress(f"{brain.name}: slices {first} to {block[-1]}, {name_of(method)}")
                call = partial(_block, models[method], brain, config.plane, block, batch, labels[method])
                seconds[method] += seconds_of(call)
    return [
        about | Way(method).columns | _cells((seconds[method],) * 3) | compared
        for method, compared in zip(models, _compared(models, labels, brain, config.plane), strict=True)
    ]


def _compared(
    models: Mapping[Method | None, nn.Module], labels: Mapping[Method | None, list[Tensor]], brain: Brain, plane: str
) -> list[Row]:
    """Return the cells on labels of a whole volume: those that differ from torch's; and of torch's own in another
    layout, where ours differ at all."""
    changed = [_changed(labels[method], labels[None]) for method in models]
    itself, count = 0, len(slices_of(brain.image, plane))
    if any(changed):
        itself = _changed(segment_contiguous(models[None], brain.image, plane, range(count)), labels[None])
    total = sum(part.numel() for part in labels[None])
    return [{"labels": total, "labels_changed": n, "stock_changed": itself} for n in changed]


def _changed(labels: Sequence[Tensor], stock: Sequence[Tensor]) -> int:
    return int((torch.cat(list(labels)).flatten() != torch.cat(list(stock)).flatten()).sum())


def _about(brain: Brain, count: int, batch: int) -> Row:
    """Return the cells that say what was timed, and when: finished parts are kept, and may be of another day."""
    load = round(os.getloadavg()[0], 2)
    return {"subject": brain.name, "threads": count, "batch": batch, "date": provenance.now(), "load_before": load}


def _block(
    model: nn.Module, brain: Brain, plane: str, block: Sequence[int], batch: int, labels: list[Tensor]
) -> None:
    for i in range(0, len(block), batch):
        labels.append(segment(model, brain.image, plane, block[i : i + batch]))


def _calls(
    models: Mapping[Method | None, nn.Module], brain: Brain, plane: str, indices: Sequence[int], box: Box | None
) -> dict[str, Call]:
    boxes = (None, box) if box else (None,)
    return {
        _key(method, part is not None): partial(segment, model, brain.image, plane, indices, part)
        for part in boxes
        for method, model in models.items()
    }


def _key(method: Method | None, cropped: bool) -> str:
    return f"{name_of(method)}{', cropped' if cropped else ''}"


def _searches(brain: Brain, plane: str) -> dict[str, Call]:
    """Return what is done once for a volume: look for the brain's box, and for slices without brain."""
    looked = segmentation.Config(plane, ())
    return {
        "box": partial(box_of, brain.image, plane),
        "empty": partial(segmentation.indices_of, brain, looked),
    }


def _seconds(way: Way, times: Sequence[Times], scale: float, once: Mapping[str, Times]) -> Extremes:
    """Return the seconds of all slices with brain, from those of the timed ones."""
    searches = [extremes(once[n]) for n, wanted in (("box", way.cropped), ("empty", way.skipping)) if wanted]
    groups = [extremes(group) for group in times]
    return _sum([*groups, *searches], [scale] * len(groups) + [1.0] * len(searches))


def extremes(times: Times) -> Extremes:
    """Return the median, the smallest and the largest of all times."""
    return median(times.all), min(times.all), max(times.all)


def _sum(parts: Sequence[Extremes], weights: Sequence[float]) -> Extremes:
    a, b, c = (sum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*parts, strict=True))
    return a, b, c


def _cells(seconds: Extremes) -> Row:
    return dict(zip(("seconds", "seconds_fastest", "seconds_slowest"), seconds, strict=True))


def warm(calls: Mapping[str, Call]) -> None:
    """Make each call once: the first one prepares weights."""
    for call in calls.values():
        call()


def _rotated(calls: Mapping[str, Call], by: int) -> dict[str, Call]:
    items = list(calls.items())
    by %= len(items)
    return dict(items[by:] + items[:by])

