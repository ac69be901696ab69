"""What do converted networks skip on whole labelled brains, and what becomes of their labels and their Dice?

Tables, one row for each subject and method: `layers` (also for each layer and scope), `slices` (also for each slice of
the brain), `dice` (also for each structure). Slices without a voxel of the brain are all alike: one is computed, and
counts for all of them in the scope "whole volume"; the scope "brain slices" leaves them out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import nanops
from analyses.brains import TEST, Brain
from analyses.methods import STOCK, Method
from analyses.metrics import dice_of_classes
from analyses.preprocessing.planes import from_plane, thick_slices, to_plane
from analyses.structures import CLASSES, IGNORED
from nanops.accounting import Skipped, Totals

Row = dict[str, Any]
Tables = dict[str, list[Row]]
BRAIN, WHOLE = "brain slices", "whole volume"
SUMS = ("windows", "skipped", "uniform", "macs", "spared", "executed")
TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows."""

    plane: str
    methods: tuple[Method, ...]
    subjects: tuple[str, ...] = TEST
    batch: int = 2
    every: int = 1  # of the slices that hold a voxel of the brain


@dataclass
class Counts:
    """Sums of windows and multiply-accumulates by layer."""

    layers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * len(SUMS)))

    def add(self, skipped: Skipped, times: int = 1) -> None:
        """Add what one forward counted, as often as it stands for."""
        for layer, totals in skipped.layers.items():
            sums = self.layers[layer]
            for i, value in enumerate(sums_of(totals)):
                sums[i] += times * value

    def rows(self, about: Row, scope: str) -> Iterator[Row]:
        """Yield a row for each layer, and one in total with the paper's figure: the mean of the layers' shares."""
        for layer, sums in self.layers.items():
            yield about | {"scope": scope, "layer": layer} | shares(sums)
        sums = [sum(column) for column in zip(*self.layers.values(), strict=True)]
        mean = sum(s[1] / s[0] for s in self.layers.values()) / len(self.layers)
        yield about | {"scope": scope, "layer": TOTAL} | shares(sums) | {"mean_over_layers": mean}


def sums_of(totals: Totals) -> list[int]:
    """Return the counts in the order of SUMS."""
    return [getattr(totals, name) for name in SUMS]


def shares(sums: Sequence[int]) -> Row:
    """Return the cells of counts: windows, and shares of them and of the multiply-accumulates."""
    windows, skipped, uniform, macs, spared, executed = sums
    return {
        "windows": windows, "skipped": skipped, "filled": uniform, "window_share": skipped / windows,
        "mac_share": spared / macs, "executed_share": executed / macs,
    }  # fmt: skip


def run(
    network: nn.Module, config: Config, load: Callable[[str], Brain], progress: Callable[[str], None] = lambda _: None
) -> Tables:
    """Return the tables of all subjects.

    Args:
        network: Trained for the plane, in eval mode.
        load: Returns a subject.
    """
    tables: Tables = {"layers": [], "slices": [], "dice": []}
    for name in config.subjects:
        for table, rows in subject(network, load(name), config, progress).items():
            tables[table] += rows
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
    volume = to_plane(brain.image, config.plane).movedim(2, 0)
    filled = (volume > 0).flatten(1).any(1)
    seen = torch.stack([filled.roll(k) for k in range(-3, 4)]).any(0)
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
    size = to_plane(brain.image, config.plane).shape
    labels = torch.zeros((size[2], size[0], size[1]), dtype=torch.uint8)
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
    manual = to_plane(brain.classes, config.plane).movedim(2, 0)
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


def volume(labels: Tensor, plane: str) -> Tensor:
    """Return labels (slices, H, W) as a volume (L, I, A)."""
    return from_plane(labels.movedim(0, 2), plane)
