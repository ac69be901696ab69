"""Which fields describe a sliding window to a kernel? Three axes; those that an image lacks have size 1."""

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nanops.windows import Windows

AXES = ("size", "out", "kernel", "stride", "before", "dilation")
FIELDS: list[Any] = [(name, ctypes.c_int64 * 3) for name in AXES]


def fill(structure: ctypes.Structure, windows: Windows, out: Sequence[int]) -> None:
    """Set these fields; `out` are the windows along each axis."""
    for name, missing in zip(AXES, (1, 1, 1, 1, 0, 1), strict=True):
        values = tuple(out) if name == "out" else getattr(windows, name)
        getattr(structure, name)[:] = (missing,) * (3 - len(values)) + tuple(values)


def expect_order(x: Tensor, last: bool) -> None:
    """Raise RuntimeError where no kernel can read or write the images x (N, C, ...) in this order."""
    if x.device.type != "cpu" or x.is_neg() or x.is_conj():
        raise RuntimeError(f"Expected a plain tensor on the processor, got {x.dtype} on {x.device}.")
    if not (x.movedim(1, -1) if last else x).is_contiguous():
        order = "channels-last" if last else "contiguous"
        raise RuntimeError(f"Expected a {order} tensor, got strides {x.stride()} of shape {tuple(x.shape)}.")
