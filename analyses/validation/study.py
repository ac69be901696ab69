"""What does the comparison of one subject's slices say? All tables of `validate`, one subject at a time.

Tables: `layers`, `windows` and `places` of agreement.py, summed over the slices of a subject; `networks`: what each way
skips and which labels it changes; `digits`: the campaign of each way itself, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from analyses.experiments.counting import Row, Tables
from analyses.methods import STOCK
from analyses.metrics import dice_of_classes
from analyses.structures import CLASSES, IGNORED
from analyses.validation.agreement import fate, layer_rows, place_rows, signed_distance, window_rows
from analyses.validation.instability import Sampling, layer_masks, probe
from analyses.validation.nans import NaNs, nans_of
from analyses.validation.views import View
from analyses.validation.ways import UNPOOLS, Convert, at_tolerances, by_masks, by_ties, is_unpool
from mcaprobe.errors import InputError
from mcaprobe.regions import ALL
from mcaprobe.rows import Row as LayerRow
from nanops import Tolerance

# Columns that are added up over the slices of a subject; MEAN, the paper's figure, is averaged.
MEAN = "mean_over_layers"
SUMMED = {
    "elements", "predicted", "true", "both", "undefined", "predicted_undefined", "predicted_once", "predicted_twice",
    "flips", "predicted_flips", "slices", "labels", "labels_changed", "labels_brain", "labels_changed_brain", "windows",
    "skipped", "macs", "spared", "executed", "nans", MEAN,
}  # fmt: skip
DIGITS = "digits"
CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d", "conv1d", "conv2d", "conv3d")
POOLS = "pool"  # what the names of poolings and unpoolings hold
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and how.

    Attributes:
        sampling: Of the stock network's campaign.
        probes: Samples of the campaigns of the ways themselves, with another seed than the masks; 0: none.
        tolerances: Other tolerances for the conservative and the aggressive way, by name.
        overrides: Calibrated ones for each pooling; None: none.
        threshold: The paper's t2.
    """

    sampling: Sampling = field(default_factory=Sampling)
    probes: int = 10
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Any]] | None = None
    threshold: float = 0.5


def subject(
    network: nn.Module, views: Sequence[View], plan: Plan, say: Say = lambda _: None,
    fates: dict[str, Tensor] | None = None,
) -> Tables:  # fmt: skip
    """Return the tables of one subject.

    Args:
        network: Stock, in eval mode.
        views: Its slices; the first one's ways are probed.
        fates: Gets, for the first slice, what becomes of each pixel of the unpooling outputs, by `method/layer`
            (agreement.fate), and its anatomy.
    """
    tables: Tables = {}
    labels: dict[str, list[Tensor]] = {}
    for number, view in enumerate(views):
        say(f"{view.subject}, slice {view.index}: campaign of {plan.sampling.samples} samples")
        ways, found = _compare(network, view, plan, tables, say, fates if number == 0 else None)
        for way, nans in found.items():
            labels.setdefault(way, []).append(nans)
        if number == 0 and plan.probes:
            _probe_all(network, view, plan, ways, tables, say)
    summed = {name: rows if name == DIGITS else total(rows) for name, rows in tables.items()}
    _add_dice(summed["networks"], views, labels)
    return summed


def _compare(
    network: nn.Module, view: View, plan: Plan, tables: Tables, say: Say, fates: dict[str, Tensor] | None
) -> tuple[dict[str, Convert], dict[str, Tensor]]:
    """Add the rows of one slice; return the ways, and the labels of each."""
    about = {"subject": view.subject}
    run = probe(network, view, plan.sampling)
    ties: dict[str, Convert] = {name: m.convert for name, m in by_ties(threshold=plan.threshold).items()}
    found = {name: nans_of(way(network), view.input.tensor, run.layers) for name, way in ties.items()}
    main, distance = next(iter(plan.sampling.criteria)), signed_distance(view.brain)
    oracle: dict[str, Tensor] = {}
    for layer in layer_masks(run, plan.sampling):
        say(f"{view.subject}, slice {view.index}: {layer.name}")
        if is_unpool(layer):
            oracle[layer.name] = layer.unstable[main]
        for name, nans in found.items():
            if layer.name not in nans.masks:
                continue
            nan = nans.masks[layer.name]
            tables.setdefault("layers", []).extend(layer_rows(about | {"method": name}, layer, nan))
            if fates is not None and is_unpool(layer):
                fates[f"{name}/{layer.name}"] = fate(nan, layer.unstable[main])
            if POOLS in layer.name:
                tables.setdefault("places", []).extend(place_rows(about | {"method": name}, layer, nan, distance))
    if fates is not None and view.picture.anatomy is not None:
        fates["anatomy"] = view.picture.anatomy
    for name, nans in found.items():
        tables.setdefault("windows", []).extend(window_rows(about | {"method": name}, run, nans))
    more = at_tolerances(plan.tolerances, plan.overrides, plan.threshold) | by_masks(oracle, threshold=plan.threshold)
    found |= {name: nans_of(way(network), view.input.tensor, ()) for name, way in more.items()}
    with torch.inference_mode():
        stock = _classes(network(view.input.tensor))
    tables.setdefault("networks", []).extend(
        about | {"method": name} | _work(nans) | _labels(_classes(nans.output), stock, view.brain)
        for name, nans in found.items()
    )
    return ties | more, {STOCK: stock, **{name: _classes(nans.output) for name, nans in found.items()}}


def _classes(logits: object) -> Tensor:
    """Return the class of each pixel, (1, H, W); InputError where these are no logits of two classes or more."""
    if not isinstance(logits, Tensor) or logits.dim() != 4 or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"Expected logits (1, classes, H, W) of two classes or more from the network, got {got}.")
    return logits.argmax(1)


def _work(nans: NaNs) -> Row:
    """Return what was skipped; the paper's figure, the mean of the layers' shares, cannot be summed: it is averaged."""
    t = nans.skipped.total
    return {
        "slices": 1, MEAN: nans.skipped.mean_over_layers, "windows": t.windows, "skipped": t.skipped,
        "macs": t.macs, "spared": t.spared, "executed": t.executed,
        "nans": sum(int(r.nans.sum()) for r in nans.skipped.replaced if r.operator == "output"),
    }  # fmt: skip


def _labels(labels: Tensor, stock: Tensor, brain: Tensor) -> Row:
    changed = labels != stock
    return {
        "labels": labels.numel(), "labels_changed": int(changed.sum()),
        "labels_brain": int(brain.sum()), "labels_changed_brain": int(changed[0][brain].sum()),
    }  # fmt: skip


def _probe_all(
    network: nn.Module, view: View, plan: Plan, ways: Mapping[str, Convert], tables: Tables, say: Say
) -> None:
    """Add the digits of the stock network and of each way, under other seeds than those of the masks."""
    sampling = replace(plan.sampling, samples=plan.probes, seed=plan.sampling.seed + 1)
    about = {"subject": view.subject, "slice": view.index, "samples": plan.probes}
    networks: dict[str, Convert] = {STOCK: lambda m: m, **ways}
    for name, way in networks.items():
        say(f"{view.subject}, slice {view.index}: digits of {name}")
        run = probe(way(network), view, sampling, keep=())
        tables.setdefault(DIGITS, []).extend(
            about | {"method": name, "layer": row.layer, "operator": row.operator, "region": row.region}
            | {"elements": row.elements, "bits_mean": row.bits_mean, "share_noise": row.share_noise,
               "share_sometimes_nan": row.share_nan, "share_always_nan": row.share_undefined,
               "share_zero": row.share_zero, "share_exact": row.share_exact, "flip_rate": row.index_change_rate}
            for row in run.table() if told(row)
        )  # fmt: skip


def told(row: LayerRow) -> bool:
    """Return whether a row of a campaign goes into the table of digits: convolutions, unpoolings and decisions.

    Activations and norms between them say little more, and all regions together are brain and background.
    """
    return row.region != ALL and (row.operator in (*CONVOLUTIONS, *UNPOOLS) or row.index_change_rate is not None)


def total(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of several slices with the counts of those of equal keys added up."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple((name, value) for name, value in row.items() if name not in SUMMED)
        if key not in found:
            found[key] = dict(row)
            continue
        for name in SUMMED & row.keys():
            found[key][name] += row[name]
    for row in found.values():
        if MEAN in row:
            row[MEAN] /= row["slices"]
    return list(found.values())


def _add_dice(rows: list[Row], views: Sequence[View], labels: Mapping[str, list[Tensor]]) -> None:
    """Put the Dice against the manual labels into the rows: the mean over the structures of a subject's slices."""
    targets = [view.target for view in views]
    if any(target is None for target in targets):
        return
    target = torch.stack([t for t in targets if t is not None])
    where = target != IGNORED
    for row in rows:
        for way, column in ((STOCK, "dice_stock"), (row["method"], "dice")):
            scores = dice_of_classes(torch.cat(labels[way]).to(target), target, where, len(CLASSES))[1:]
            known = [s for s in scores if s == s]
            row[column], row["structures"] = sum(known) / len(known), len(known)
