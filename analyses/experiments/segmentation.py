"""What do converted networks skip on whole labelled brains, and what becomes of their labels and their Dice?

Tables, one row for each subject and method: `layers` (also for each layer and scope), `slices` (also for each slice of
the brain), `dice` (also for each structure). Slices without a voxel of the brain are all alike: one is computed, and
counts for all of them in the scope "whole volume"; the scope "brain slices" leaves them out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import nanops
from analyses.brains import TEST, Brain
from analyses.experiments.counting import BRAIN, WHOLE, Counts, Row, Tables, merge, shares, sums_of
from analyses.methods import STOCK, Method
from analyses.metrics import dice_of_classes
from analyses.preprocessing.planes import CONTEXT, filled, slices_of, thick_slices
from analyses.structures import CLASSES, IGNORED
from nanops.accounting import Skipped


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows."""

    plane: str
    methods: tuple[Method, ...]
    subjects: tuple[str, ...] = TEST
    batch: int = 2
    every: int = 1  # of the slices that hold a voxel of the brain


def run(
    network: nn.Module, config: Config, load: Callable[[str], Brain], progress: Callable[[str], None] = lambda _: None
) -> Tables:
    """Return the tables of all subjects.

    Args:
        network: Trained for the plane, in eval mode.
        load: Returns a subject.
    """
    tables: Tables = {}
    for name in config.subjects:
        merge(tables, subject(network, load(name), config, progress))
    return tables


@torch.inference_mode()
def subject(network: nn.Module, brain: Brain, config: Config, progress: Callable[[str], None]) -> Tables:
    """Return the tables of one subject."""
    tables: Tables = {"layers": [], "slices": [], "dice": []}
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stock = segment(network, brain, config, Counts(), Counts(), [])
    _scores(tables, {"subject": brain.name, "method": STOCK}, stock, stock, brain, config)
    for method in config.methods:
        progress(f"{brain.name}: {method.pooling} {method.threshold:g}")
        inside, whole = Counts(), Counts()
        slices: list[list[int]] = []
        labels = segment(method.convert(network), brain, config, inside, whole, slices)
        about = {"subject": brain.name, "method": method.pooling or "uniform", **method.columns}
        tables["layers"] += [*inside.rows(about, BRAIN), *whole.rows(about, WHOLE)]
        _scores(tables, about, labels, stock, brain, config, slices)
    return tables


def indices_of(brain: Brain, config: Config) -> tuple[list[int], list[int]]:
    """Return the slices that the network sees something in, and all others; slices see their neighbours."""
    own = filled(brain.image, config.plane)
    seen = torch.stack([own.roll(k) for k in range(-CONTEXT, CONTEXT + 1)]).any(0)
    inside = torch.nonzero(seen).flatten().tolist()
    return inside[:: config.every], torch.nonzero(~seen).flatten().tolist()


def segment(
    network: nn.Module, brain: Brain, config: Config, inside: Counts, whole: Counts, slices: list[list[int]]
) -> Tensor:
    """Return the classes (slices, H, W) of a subject, uint8; count what was skipped.

    Args:
        inside, whole: Get the counts of the slices with brain, and of all.
        slices: Gets the counts of each slice with brain.
    """
    chosen, empty = indices_of(brain, config)
    labels = torch.zeros(slices_of(brain.image, config.plane).shape, dtype=torch.uint8)
    for first in range(0, len(chosen), config.batch):
        part = chosen[first : first + config.batch]
        skipped, found = _forward(network, brain, config, part)
        labels[part] = found
        inside.add(skipped)
        whole.add(skipped)
        slices += [sums_of(totals) for totals in skipped.slices]
    if empty:
        skipped, found = _forward(network, brain, config, empty[:1])
        labels[empty] = found
        whole.add(skipped, len(empty))
    return labels


def _forward(network: nn.Module, brain: Brain, config: Config, indices: Sequence[int]) -> tuple[Skipped, Tensor]:
    x = thick_slices(brain.image, config.plane, indices).contiguous(memory_format=torch.channels_last)
    with nanops.count_skipped(network) as skipped:
        return skipped, network(x).argmax(1).to(torch.uint8)


def _scores(
    tables: Tables, about: Row, labels: Tensor, stock: Tensor, brain: Brain, config: Config,
    slices: Sequence[Sequence[int]] = (),
) -> None:  # fmt: skip
    """Add the rows of `dice` and `slices`."""
    manual = slices_of(brain.classes, config.plane)
    chosen, _ = indices_of(brain, config)
    counted = torch.zeros_like(manual, dtype=torch.bool)
    counted[chosen] = manual[chosen] != IGNORED
    scores = dice_of_classes(labels, manual, counted, len(CLASSES))
    changed = labels != stock
    for name, score in zip(CLASSES, scores, strict=True):
        tables["dice"].append(about | {"structure": name, "dice": score, "labels_changed": int(changed.sum())})
    for k, i in enumerate(chosen):
        each = dice_of_classes(labels[i], manual[i], counted[i], len(CLASSES))
        present = [each[c] for c in range(1, len(CLASSES)) if bool((manual[i] == c).any())]
        row = about | {"slice": i, "structures": len(present), "labels_changed": int(changed[i].sum())}
        row["dice"] = sum(present) / len(present) if present else float("nan")
        tables["slices"].append(row | (shares(slices[k]) if slices else {}))
