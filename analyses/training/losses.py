"""What is made small? For classes cross entropy and soft Dice, for images the mean absolute difference."""

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(logits: Tensor, target: Tensor, ignored: int = -100, weights: Tensor | None = None) -> Tensor:
    """Return cross entropy plus one minus the soft Dice of the foreground classes, over the whole batch.

    Args:
        logits: (N, classes, *size), float32, in two or three dimensions.
        target: Classes, (N, *size) int64; pixels of the value `ignored` count in no way.
        weights: Of the classes in the cross entropy, (classes,); None: all 1.
    """
    classes = logits.shape[1]
    counted = (target != ignored)[:, None]
    shares = torch.where(counted, logits.softmax(1), 0.0)
    wanted = F.one_hot(torch.where(counted[:, 0], target, 0), classes).movedim(-1, 1) * counted
    places = (0, *range(2, logits.ndim))
    both = (shares * wanted).sum(places)
    total = (shares + wanted).sum(places)
    dice = (2 * both + 1) / (total + 1)  # the 1: a class that is absent and not predicted costs nothing
    return F.cross_entropy(logits, target, weights, ignore_index=ignored) + 1 - dice[1:].mean()


def balance(classes: Tensor, count: int) -> Tensor:
    """Return a weight for each of `count` classes, the root of the median frequency over its own (a softened form of
    FastSurfer's balancing, Henschel et al. 2020); 1 for a class that does not occur.

    Args:
        classes: Of any shape; values of `count` or more are left out.
    """
    found = torch.bincount(classes[classes < count].flatten().long(), minlength=count).double()
    present = found > 0
    weights = torch.ones(count)
    weights[present] = (found[present].median() / found[present]).sqrt().float()
    return weights
