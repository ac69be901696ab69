"""Which elements of a layer lie in a region of the image?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mcaprobe.errors import InputError

ALL = "all"


def in_groups(masks: Mapping[str, Tensor], most: int) -> list[dict[str, Tensor]]:
    """Return the masks in groups of at most `most`, in their order; one empty group without masks."""
    names = list(masks)
    return [{name: masks[name] for name in names[i : i + most]} for i in range(0, max(len(names), 1), most)]


def positions(shape: torch.Size, masks: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return, for `all` and each mask, the positions of its elements within the masked dimensions.

    Args:
        shape: The layer's.
        masks: Bool, each of the layer's last dimensions (its spatial shape); batch and channel share it.
    Returns:
        Indices into the flattened last dimensions, int64, by region; None means every position.
    """
    found: dict[str, Tensor | None] = {ALL: None}
    for name, mask in masks.items():
        expected = tuple(shape[len(shape) - mask.ndim :]) if mask.ndim <= len(shape) else tuple(shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise InputError(
                f"Expected the mask {name!r} to be bool of shape {expected}, the last dimensions of "
                f"the layer {tuple(shape)}, got {mask.dtype} of shape {tuple(mask.shape)}."
            )
        if name != ALL:
            found[name] = mask.reshape(-1).nonzero().squeeze(1)
        elif not bool(mask.all()):
            raise InputError(f"Expected the mask {ALL!r} to cover the whole layer; another part needs another name.")
    return found


def select(values: Tensor, masks: Mapping[str, Tensor], name: str, where: Tensor | None) -> Tensor:
    """Return the elements of a region as a flat tensor; `where` comes from positions()."""
    if where is None:
        return values.reshape(-1)
    return values.reshape(-1, masks[name].numel()).index_select(1, where).reshape(-1)
