"""What is left of a network whose weakest output channels are 0? Structured pruning by magnitude, torch's own.

Li et al. 2017 rank filters by their L1 norm; `torch.nn.utils.prune.ln_structured` sets them to 0 and removes nothing:
shapes, multiply-accumulates of a dense kernel and memory stay what they were.
"""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from mcaprobe.errors import InputError
from nanops.errors import nearest

Network = TypeVar("Network", bound=nn.Module)
Layer = _ConvNd | nn.Linear


def magnitude_pruned(network: Network, share: float, norm: int = 1, keep: Iterable[str] = ()) -> Network:
    """Return a copy in which round(share N) of the N output channels of each layer are 0, those of smallest norm.

    Layers are convolutions, transposed ones and linear ones. The bias of such a channel is 0 as well, where there is
    one, so that the layer puts out 0; a norm behind it may move that.

    Args:
        share: In [0, 1).
        norm: 1 or 2, of a channel's weights.
        keep: Globs of layers that stay as they are, such as the classifier.

    Raises:
        InputError: one of these makes no sense, a glob without a layer, a layer that would lose all its channels, has
            groups that share an axis, weights that are not finite or that belong to another layer too.
    """
    if not 0 <= share < 1 or norm not in (1, 2):
        raise InputError(f"Expected a share in [0, 1) and a norm of 1 or 2, got {share} and {norm}.")
    expect_unconverted(network)
    copy = deepcopy(network)
    layers = layers_of(copy)
    globs = [keep] if isinstance(keep, str) else list(keep)
    for glob in globs:
        if not any(fnmatchcase(path, glob) for path in layers):
            raise InputError(f"Expected a glob that matches a layer, got {glob!r}{nearest(glob, layers)}")
    users = Counter(id(layer.weight) for layer in layers.values())
    chosen = {path: m for path, m in layers.items() if not any(fnmatchcase(path, glob) for glob in globs)}
    for path, layer in chosen.items():
        _check(path, layer, users[id(layer.weight)])
        _prune(path, layer, share, norm)
    return copy


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """Return the convolutions and linear layers of a network by path.

    Raises:
        InputError: there is none.
    """
    found: dict[str, Layer] = {path: m for path, m in network.named_modules() if isinstance(m, (_ConvNd, nn.Linear))}
    if not found:
        raise InputError(f"Expected a network with convolutions or linear layers, got a {type(network).__name__} "
                         "without one.")  # fmt: skip
    return found


def channel_axis(layer: Layer) -> int:
    """Return the axis of a layer's weight that its output channels lie along."""
    return 1 if isinstance(layer, _ConvNd) and layer.transposed else 0


def zero_channels(layer: Layer) -> int:
    """Return how many output channels of a layer have weights of 0 only."""
    weight = layer.weight.detach().transpose(0, channel_axis(layer)).flatten(1)
    return int((weight == 0).all(1).sum())


def _check(path: str, layer: Layer, users: int) -> None:
    if users > 1:
        raise InputError(f"Expected weights of one layer, got those of {path!r} in {users} layers.")
    if isinstance(layer, _ConvNd) and layer.transposed and layer.groups > 1:
        raise InputError(f"Expected one group in the transposed convolution {path!r}, got {layer.groups}: a slice of "
                         "its weights is a channel of every group.")  # fmt: skip
    if not bool(layer.weight.isfinite().all()):
        raise InputError(f"Expected finite weights in {path!r}, got NaN or infinity.")


def _prune(path: str, layer: Layer, share: float, norm: int) -> None:
    axis = channel_axis(layer)
    channels = layer.weight.shape[axis]
    count = round(share * channels)
    if count == channels:
        raise InputError(f"Expected a share that leaves {path!r} a channel, got {share} of {channels}.")
    if count == 0:
        return
    prune.ln_structured(layer, "weight", amount=count, n=norm, dim=axis)
    gone = (layer.get_buffer("weight_mask").transpose(0, axis).flatten(1) == 0).all(1)
    prune.remove(layer, "weight")  # the mask is in the weights from here on
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias[gone] = 0
