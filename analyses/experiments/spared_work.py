"""What do the timed ways compute, and what becomes of the labels? On the slices that are timed, without a clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import nanops
from analyses.benchmarks.timing import threads
from analyses.brains import Brain
from analyses.experiments.counting import BRAIN, WHOLE, Row
from analyses.experiments.wall_clock import Config, Plan, converted, plan_of
from analyses.experiments.ways import VOLUMES, Box, Way, box_of, segment, segment_contiguous
from analyses.metrics import dice_of_classes
from analyses.preprocessing.planes import slices_of
from analyses.structures import CLASSES, IGNORED

ITSELF = ("stock, 2 slices at once", "stock, contiguous")  # the yardstick of changed labels


@dataclass
class Done:
    """What one network made of some slices, each computed by itself: classes, and multiply-accumulates."""

    labels: list[Tensor] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)
    dense: list[int] = field(default_factory=list)


@torch.inference_mode()
def subject(
    network: nn.Module, brain: Brain, config: Config, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Return a row for each way and scope: executed multiply-accumulates over those of torch's network on all of the
    volume, labels that differ from it, Dice; and rows of torch's network against itself."""
    plan, models = plan_of(brain, config.plane, config.every), converted(network, config.methods)
    slices = [*plan.timed, *plan.empty[:1]]
    box = box_of(brain.image, config.plane)
    done: dict[tuple[Any, bool], Done] = {}
    with threads(config.threads):
        for method, cropped in product(config.methods, (False, True)):
            progress(f"{brain.name}: work of {Way(method, cropped).columns}")
            done[method, cropped] = _done(models[method], brain, config.plane, slices, box if cropped else None)
        itself = _itself(models[None], brain, config.plane, slices)
    stock = done[None, False]
    rows = []
    for volume, method in product(VOLUMES, config.methods):
        way = Way(method, *volume)
        found = done[method, way.cropped]
        labels = _without_empty(found.labels, plan) if way.skipping else found.labels
        for scope in (BRAIN, WHOLE):
            work = _executed_share(found, stock, plan, scope, way.skipping)
            rows.append(way.columns | work | _labels(labels, stock.labels, brain, config.plane, slices, plan, scope))
    for name, labels in itself.items():
        for scope in (BRAIN, WHOLE):
            about = Way(None).columns | {"method": name, "executed_share": 1.0}
            rows.append(about | _labels(labels, stock.labels, brain, config.plane, slices, plan, scope))
    return [{"subject": brain.name} | row for row in rows]


def _done(model: nn.Module, brain: Brain, plane: str, slices: list[int], box: Box | None) -> Done:
    done = Done()
    for i in slices:
        with nanops.count_skipped(model) as skipped:
            done.labels.append(segment(model, brain.image, plane, [i], box)[0])
        done.executed.append(skipped.total.executed)
        done.dense.append(skipped.total.macs)
    return done


def _itself(stock: nn.Module, brain: Brain, plane: str, slices: list[int]) -> dict[str, list[Tensor]]:
    """Return the labels of torch's own network in ways that should change nothing."""
    count = len(slices_of(brain.image, plane))
    pairs = {i: [i, i + 1] if i + 1 < count else [i, i - 1] for i in slices}
    contiguous = segment_contiguous(stock, brain.image, plane, slices)
    together = [segment(stock, brain.image, plane, pairs[i])[0] for i in slices]
    return dict(zip(ITSELF, (together, contiguous), strict=True))


def _without_empty(labels: list[Tensor], plan: Plan) -> list[Tensor]:
    return [*labels[: len(plan.timed)], *(torch.zeros_like(x) for x in labels[len(plan.timed) :])]


def _executed_share(done: Done, stock: Done, plan: Plan, scope: str, skipping: bool) -> Row:
    n = len(plan.timed)
    empty = len(plan.empty) if scope == WHOLE else 0

    def volume(each: list[int], of_empty: int) -> float:
        return plan.scale * sum(each[:n]) + sum(each[n:]) * of_empty

    executed = volume(done.executed, 0 if skipping else empty)
    return {"executed_share": executed / volume(stock.dense, empty)}


def _labels(
    labels: list[Tensor], stock: list[Tensor], brain: Brain, plane: str, slices: list[int], plan: Plan, scope: str
) -> Row:
    """Return the cells on labels; an empty slice counts once, and Dice is that of the slices with brain."""
    n = len(plan.timed) if scope == BRAIN else len(slices)
    found, theirs = torch.stack(labels[:n]), torch.stack(stock[:n])
    manual = slices_of(brain.classes, plane)[slices[:n]]
    scores = dice_of_classes(found, manual, manual != IGNORED, len(CLASSES))[1:]
    present = [score for score in scores if score == score] or [float("nan")]
    changed = int((found != theirs).sum())
    return {"scope": scope, "labels": found.numel(), "labels_changed": changed, "dice": fmean(present)}


