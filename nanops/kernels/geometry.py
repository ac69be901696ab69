"""Which fields describe a sliding window to a kernel? Three axes; those that an image lacks have size 1."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanops.windows import Windows

AXES = ("size", "out", "kernel", "stride", "before", "dilation")
FIELDS: list[Any] = [(name, ctypes.c_int64 * 3) for name in AXES]


def fill(structure: ctypes.Structure, windows: Windows, out: Sequence[int]) -> None:
    """Set these fields; `out` are the windows along each axis."""
    for name, missing in zip(AXES, (1, 1, 1, 1, 0, 1), strict=True):
        values = tuple(out) if name == "out" else getattr(windows, name)
        getattr(structure, name)[:] = (missing,) * (3 - len(values)) + tuple(values)


def channels_last(x: Tensor) -> bool:
    """Return whether the images of x (N, C, ...) have their channels last.

    Raises:
        RuntimeError: neither last nor before the places, or no plain float32: no kernel can read it.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.is_neg() or x.is_conj():
        raise RuntimeError(f"Expected a float32 tensor on the processor, got {x.dtype} on {x.device}.")
    if x.is_contiguous():
        return False
    if not x.movedim(1, -1).is_contiguous():
        raise RuntimeError(f"Expected a contiguous or a channels-last tensor, got strides {x.stride()}.")
    return True
