"""How far are the feature maps of a layer from one of them? Sauron's two distances, eqs. (2) and (3).

Valverde et al., Sauron U-Net. Feature maps are (N, C, *size) with one to three axes of space; distances are Euclidean,
between maps that were averaged in windows of `window`, or of the whole axis where that is smaller.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mcaprobe.errors import InputError

WINDOW = 2  # section 3.4
EPSILON = 1e-5  # added to a map's range: a constant map becomes 0, not NaN
_POOLS = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


def normalised(maps: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return each feature map of (N, C, *size) scaled to [0, 1], a constant one to 0."""
    space = tuple(range(2, maps.ndim))
    low, high = maps.amin(space, keepdim=True), maps.amax(space, keepdim=True)
    return (maps - low) / (high - low + epsilon)


def distances(maps: Tensor, reference: int, window: int = WINDOW) -> Tensor:
    """Return the distance of each pooled feature map to that of channel `reference`, (N, C).

    Raises:
        InputError: maps are not (N, C, *size), or there is no such channel.
    """
    if maps.ndim not in _POOLS:
        raise InputError(f"Expected feature maps of shape (N, C, *size), got {tuple(maps.shape)}.")
    if not 0 <= reference < maps.shape[1]:
        raise InputError(f"Expected a channel from 0 to {maps.shape[1] - 1}, got {reference}.")
    sizes = [min(window, n) for n in maps.shape[2:]]
    pooled: Tensor = _POOLS[maps.ndim](maps, sizes, sizes)
    away = pooled - pooled[:, reference, None]
    return torch.linalg.vector_norm(away.flatten(2), dim=2)


def delta_opt(layers: Sequence[Tensor], window: int = WINDOW, epsilon: float = EPSILON) -> Tensor:
    """Return the mean distance of normalised feature maps to the first one, a number to be made small (eq. 2).

    The mean is over channels (the first one counts, with its 0), samples and layers; a layer of one channel is 0.

    Args:
        layers: Feature maps of each layer, (N, C, *size).

    Raises:
        InputError: no layers, or maps of another shape.
    """
    if not layers:
        raise InputError("Expected the feature maps of a layer or more, got none.")
    return torch.stack([distances(normalised(maps, epsilon), 0, window).mean() for maps in layers]).mean()


def delta_prune(maps: Tensor, reference: int, window: int = WINDOW) -> Tensor:
    """Return the distance of each feature map to channel `reference` over the largest one of its sample, (N, C).

    Eq. (3) before the average over samples. All 0 where all maps of a sample are the same.

    Args:
        maps: Feature maps of a layer, (N, C, *size).
        reference: The channel pi, 0 the first.

    Raises:
        InputError: as `distances`.
    """
    found = distances(maps, reference, window)
    largest = found.amax(1, keepdim=True)
    return torch.where(largest > 0, found / largest.where(largest > 0, 1.0), 0.0)
