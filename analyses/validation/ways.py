"""Which networks are held against each other? The paper's poolings, an oracle that knows the campaign, and controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

import nanops
from analyses.methods import Method
from analyses.validation.instability import LayerMasks
from nanops import PAPER, Tolerance

THRESHOLD = 0.5
UNPOOLS = ("MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d")
ORACLE, MOVED, RANDOM = "oracle", "oracle, moved", "oracle, random"
Convert = Callable[[nn.Module], nn.Module]


def by_ties(tolerance: Tolerance = PAPER, threshold: float = THRESHOLD) -> dict[str, Method]:
    """Return the poolings of the paper and their hybrid, at one tolerance."""
    return {name: Method(name, threshold, tolerance=tolerance) for name in ("conservative", "aggressive", "hybrid")}


def at_tolerances(
    tolerances: Mapping[str, Tolerance], overrides: Mapping[str, Mapping[str, Any]] | None, threshold: float = THRESHOLD
) -> dict[str, Convert]:
    """Return the paper's poolings at other tolerances by `pooling, name`, and with those that were calibrated.

    Args:
        overrides: What `analyses calibrate` wrote for each pooling; None: nothing was calibrated.
    """
    ways: dict[str, Convert] = {}
    for pooling in ("conservative", "aggressive"):
        convert = partial(nanops.convert, pooling=pooling, threshold=threshold)
        if overrides is not None:
            ways[f"{pooling}, calibrated"] = partial(convert, overrides=overrides)
        for name, tolerance in tolerances.items():
            ways[f"{pooling}, {name}"] = partial(convert, tolerance=tolerance)
    return ways


def is_unpool(layer: LayerMasks) -> bool:
    """Return whether a layer is a max-unpool."""
    return layer.operator in UNPOOLS


def by_masks(masks: Mapping[str, Tensor], seed: int = 0, threshold: float = THRESHOLD) -> dict[str, Convert]:
    """Return conversions that put NaN where masks say, at the unpools, and two controls with as many NaNs a layer.

    Args:
        masks: By unpool, bool (1, C, h, w).
        seed: Of the places of the random control.
    """
    ways = {ORACLE: masks, MOVED: moved(masks), RANDOM: scattered(masks, seed)}
    return {
        name: partial(nanops.convert, pooling="mask", masks=dict(chosen), threshold=threshold)
        for name, chosen in ways.items()
    }


def moved(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks moved by half the image along both axes, around its ends: as many NaNs, clustered as much."""
    return {name: m.roll((m.shape[-2] // 2, m.shape[-1] // 2), (-2, -1)) for name, m in masks.items()}


def scattered(masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return masks with as many elements a layer, anywhere."""
    generator = Generator().manual_seed(seed)
    return {
        name: m.flatten()[torch.randperm(m.numel(), generator=generator)].view(m.shape) for name, m in masks.items()
    }
