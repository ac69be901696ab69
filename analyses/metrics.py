"""How well do two segmentations agree, and how sure is the mean?"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.segmentation import dice_score

DICE_OPTIONS: dict[str, Any] = {
    "include_background": True,
    "average": "none",
    "input_format": "index",
    "aggregation_level": "samplewise",
}
DICE_DEFINITION = "2 |P and T| / (|P| + |T|) over the voxels of one subject and region; NaN where both are empty"


def dice_of_classes(predicted: Tensor, target: Tensor, where: Tensor, classes: int) -> list[float]:
    """Return the Dice coefficient of each class over the voxels of a region, by torchmetrics with fixed options.

    Args:
        predicted: Classes of any shape.
        target: Classes of the same shape.
        where: Bool of the same shape; other voxels count in no way.
    Returns:
        One number in [0, 1] for each class; NaN where neither has the class.
    """
    p, t = predicted[where].long()[None], target[where].long()[None]
    scores = dice_score(p, t, num_classes=classes, **DICE_OPTIONS)[0]
    present = torch.bincount(p[0], minlength=classes) + torch.bincount(t[0], minlength=classes) > 0
    return [float(s) if here else float("nan") for s, here in zip(scores, present, strict=True)]


def bootstrap_interval(values: list[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over subjects."""
    x = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    low, high = np.quantile(x[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)
