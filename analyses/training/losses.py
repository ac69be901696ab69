"""What is made small? For classes cross entropy and soft Dice, for images the mean absolute difference."""

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(logits: Tensor, target: Tensor, ignored: int = -100) -> Tensor:
    """Return cross entropy plus one minus the soft Dice of the foreground classes, over the whole batch.

    Args:
        logits: (N, classes, H, W), float32.
        target: Classes, (N, H, W) int64; pixels of the value `ignored` count in no way.
    """
    classes = logits.shape[1]
    counted = (target != ignored)[:, None]
    shares = torch.where(counted, logits.softmax(1), 0.0)
    wanted = F.one_hot(torch.where(counted[:, 0], target, 0), classes).permute(0, 3, 1, 2) * counted
    both = (shares * wanted).sum((0, 2, 3))
    total = (shares + wanted).sum((0, 2, 3))
    dice = (2 * both + 1) / (total + 1)  # the 1: a class that is absent and not predicted costs nothing
    return F.cross_entropy(logits, target, ignore_index=ignored) + 1 - dice[1:].mean()
