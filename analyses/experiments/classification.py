"""What do aggressive NaNs skip in classifiers, and what becomes of their F1?

One row for each method, format and layer; scores stand in the row `total`. F1 is the mean over the classes.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

import nanops
from analyses.experiments.counting import Counts, Row
from analyses.methods import STOCK, Method
from analyses.metrics import f1
from nanops import Tolerance


class Labelled(Protocol):
    """Images and their classes (N,) int64."""

    @property
    def classes(self) -> Tensor:
        """Return the classes."""

    def inputs(self, indices: Tensor) -> Tensor:
        """Return images as the network wants them."""


PAPER_THRESHOLDS = (1.0, 0.85, 0.75, 0.65, 0.5)
FILLS = ("max_normal", "mean")  # approach B, with which the paper has its numbers, and approach A
SWEEP = (1e-7, 1e-5, 1e-3, 1e-2)
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def mnist_methods() -> tuple[Method, ...]:
    """Return the paper's thresholds with both approaches."""
    return tuple(Method("aggressive", t, fill=fill) for fill in FILLS for t in PAPER_THRESHOLDS)


def sweep_methods() -> tuple[Method, ...]:
    """Return the paper's tolerances."""
    return tuple(Method("aggressive", t, tolerance=Tolerance("absolute", eps)) for eps in SWEEP for t in (1.0, 0.5))


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows."""

    network: str
    methods: tuple[Method, ...]
    formats: tuple[str, ...] = ("float32",)
    images: int = 10_000
    batch: int = 250
    seed: int = 0


def run(
    network: nn.Module, digits: Labelled, config: Config, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Return the rows of all methods and formats.

    Args:
        network: A trained classifier, in eval mode, in float32.
        digits: The images that are classified.
    """
    rows: list[Row] = []
    for name in config.formats:
        model = deepcopy(network).to(FORMATS[name])
        for method in (None, *config.methods):
            progress(f"{config.network}, {name}, {STOCK if method is None else f'{method.threshold:g}'}")
            rows += _rows(model, method, name, digits, config)
    return rows


@torch.inference_mode()
def _rows(model: nn.Module, method: Method | None, name: str, digits: Labelled, config: Config) -> list[Row]:
    outputs, counts, replaced = [], Counts(), 0
    converted = model if method is None else method.convert(model, config.seed)
    indices = torch.arange(min(config.images, len(digits.classes)))
    for part in indices.split(config.batch):
        x = digits.inputs(part).to(FORMATS[name])
        with nanops.count_skipped(converted) as skipped:
            outputs.append(converted(x).float())
        counts.add(skipped)
        replaced += sum(int(r.nans.sum()) for r in skipped.replaced)
    logits = torch.cat(outputs)
    bad = int(logits.isnan().sum())
    score, accuracy = f1(torch.nan_to_num(logits, 0.0), digits.classes[indices])
    about: Row = {"network": config.network, "format": name, "method": STOCK, "images": len(indices)}
    if method is not None:
        tolerance = method.tolerance.value
        about |= {"method": method.pooling, **method.columns, "tolerance": tolerance}
    scores = {"f1": score, "accuracy": accuracy, "nan_replaced": replaced, "nan_logits": bad}
    return [row | (scores if row["layer"] == "total" else {}) for row in counts.rows(about, "images")]
