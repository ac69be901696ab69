"""Do the NaN masks mark the unstable elements: layer by layer, window by window, and by distance to the brain's edge?

In every row the prediction is the NaN mask, the truth is what the campaign says. An element that never varied in the
samples has no digits: it counts as not unstable; how many of the NaNs stand on such elements is a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from analyses.experiments.counting import Row
from analyses.validation.instability import LayerMasks, changes
from analyses.validation.nans import INDICES, NaNs
from mcaprobe.agreement import Agreement
from mcaprobe.result import Result

# Voxels from the edge of the brain's mask, negative outside.
EDGES = (-inf, -64, -32, -16, -8, -2, 2, 8, 16, inf)
BOUNDARY = 2
SCORES = ("dice", "iou", "precision", "recall", "mcc", "chance_dice", "chance_precision")


def layer_rows(about: Row, layer: LayerMasks, nan: Tensor) -> Iterator[Row]:
    """Yield a row for each criterion: how the NaNs of a layer agree with its unstable elements."""
    silent = int((nan & layer.undefined).sum())
    for criterion, truth in layer.unstable.items():
        yield about | {
            "layer": layer.name, "operator": layer.operator, "criterion": criterion,
            **counts(Agreement.of(nan, truth)), "undefined": int(layer.undefined.sum()), "predicted_undefined": silent,
        }  # fmt: skip


def counts(found: Agreement) -> Row:
    """Return the four counts as cells; A is the prediction, B the truth."""
    return {"elements": found.elements, "predicted": found.a, "true": found.b, "both": found.both}


def scores(found: Agreement) -> Row:
    """Return the ratios of the counts as cells."""
    return {name: getattr(found, name) for name in SCORES}


def agreement_of(row: Mapping[str, object]) -> Agreement:
    """Return the counts of a row, as text or as numbers."""
    return Agreement(*(int(str(row[name])) for name in ("predicted", "true", "both", "elements")))


def window_rows(about: Row, run: Result, found: NaNs, least: int = 1) -> Iterator[Row]:
    """Yield a row for each pooling: how its ambiguous windows agree with those whose index changed.

    Args:
        least: Samples in which an index has to change.
    """
    for name, ambiguous in found.ambiguous.items():
        moved = changes(run, name)
        hit = moved[ambiguous]
        yield about | {
            "layer": name.removesuffix(INDICES), "samples": run.samples, "least": least,
            **counts(Agreement.of(ambiguous, moved >= least)),
            "predicted_once": int((hit == 1).sum()), "predicted_twice": int((hit == 2).sum()),
            "flips": int(moved.sum()), "predicted_flips": int(hit.sum()),
        }  # fmt: skip


def signed_distance(brain: Tensor) -> Tensor:
    """Return the distance of each pixel to the edge of a mask (H, W) in pixels, float32: above 0 inside, else below.

    A mask without a pixel is far from everything.
    """
    inside = brain.numpy()
    if not inside.any():
        return torch.full(brain.shape, -inf)
    far = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    return torch.from_numpy(np.asarray(far, np.float32))


def place_rows(
    about: Row, layer: LayerMasks, nan: Tensor, distance: Tensor, edges: Sequence[float] = EDGES
) -> Iterator[Row]:
    """Yield a row for each criterion and band of distances to the brain's edge.

    Args:
        distance: Of the pixels of the input, (H, W).
        edges: Bands are [low, high).
    """
    far = layer.at(distance, -inf)
    for low, high in pairwise(edges):
        band = ((far >= low) & (far < high)).flatten()
        if not band.any():
            continue
        for criterion, truth in layer.unstable.items():
            found = Agreement.of(nan.flatten(-2)[..., band], truth.flatten(-2)[..., band])
            yield about | {
                "layer": layer.name, "criterion": criterion, "low": low, "high": high, "zone": zone(low, high),
                **counts(found),
            }  # fmt: skip


def fate(nan: Tensor, unstable: Tensor) -> Tensor:
    """Return for each pixel the share of the channels that are NaN and unstable, only NaN, only unstable: (3, h, w).

    Args:
        nan, unstable: Bool, (1, C, h, w).
    """
    n, u = nan[0], unstable[0]
    return torch.stack([(n & u).float().mean(0), (n & ~u).float().mean(0), (~n & u).float().mean(0)])


def zone(low: float, high: float) -> str:
    """Return what a band of distances is called."""
    if high <= -BOUNDARY:
        return "background"
    return "inside" if low >= BOUNDARY else "boundary"
