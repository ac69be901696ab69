"""Maxima of windows, their places and their ties (pooling.cpp); the way back (unpooling.cpp)."""

import ctypes

import torch
from torch import Tensor

from nanops import kernels
from nanops.kernels.geometry import FIELDS, expect_order, fill
from nanops.tolerance import Tolerance
from nanops.windows import Windows

_COUNTS = [(name, ctypes.c_int64) for name in ("n", "channels", "channels_last", "word")]
_KINDS = {"absolute": 0, "relative": 1, "isclose": 1, "ulps": 2}
LARGEST_IMAGE = 2**31 - 1  # positions are 32-bit numbers inside
GRAIN = 1 << 15  # numbers of an image from which on one more thread pays


class _Pooling(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_void_p) for name in ("x", "values", "indices", "ties")), *_COUNTS, *FIELDS,
                ("max_ties", ctypes.c_int64), ("kind", ctypes.c_int64), ("amount", ctypes.c_float),
                ("floor", ctypes.c_float), ("ulps", ctypes.c_uint32), ("threads", ctypes.c_uint32)]  # fmt: skip


class _Unpooling(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_void_p) for name in ("values", "ties", "y")), *_COUNTS, *FIELDS,
                ("nan_wins", ctypes.c_int64), ("threads", ctypes.c_int64)]  # fmt: skip


def pool(x: Tensor, windows: Windows, tolerance: Tolerance, max_ties: int, values: Tensor, chosen: Tensor, *,
         bitmap: bool, last: bool) -> None:  # fmt: skip
    """Write the pooled values, NaN where more than `max_ties` tie, and what was chosen.

    Args:
        x: float32 (N, C, ...), each window has a tap inside.
        tolerance: In units of float32.
        values, chosen: Empty tensors of the pooled shape.
        bitmap: Whether `chosen` are the ties of each window, else the places of the maxima, int64.
        last: Whether channels are stored last, in all three.
    """
    for tensor in (x, values, chosen):
        expect_order(tensor, last)
    call = _Pooling(x=x.data_ptr(), values=values.data_ptr(), n=x.shape[0], channels=x.shape[1])
    call.channels_last, call.word = last, chosen.element_size()
    setattr(call, "ties" if bitmap else "indices", chosen.data_ptr())
    fill(call, windows, windows.counts)
    call.max_ties, call.kind = min(max_ties, 2**32 - 1), _KINDS[tolerance.kind]
    call.amount, call.floor = tolerance.bound(torch.float32), tolerance.floor
    call.ulps, call.threads = int(min(tolerance.value, 2**32 - 1)), _threads(x)
    kernels.required().nan_pool(ctypes.byref(call))


def unpool(values: Tensor, ties: Tensor, windows: Windows, y: Tensor, *, nan_wins: bool, last: bool) -> None:
    """Write the unpooled image.

    Args:
        values: float32 (N, C, ...).
        ties: Their bitmaps.
        windows: Over the image y; only as many as there are values.
        y: Empty.
        last: Whether channels are stored last, in all three.
    """
    for tensor in (values, ties, y):
        expect_order(tensor, last)
    call = _Unpooling(values=values.data_ptr(), ties=ties.data_ptr(), y=y.data_ptr(), n=y.shape[0], channels=y.shape[1])
    call.channels_last, call.word = last, ties.element_size()
    fill(call, windows, values.shape[2:])
    call.nan_wins, call.threads = nan_wins, _threads(y)
    kernels.required().nan_unpool(ctypes.byref(call))


def _threads(image: Tensor) -> int:
    """Return how many threads an image is worth: torch's own number, fewer for a small one."""
    return min(torch.get_num_threads(), 1 + image.numel() // GRAIN)
