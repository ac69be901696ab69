"""The compiled NaN convolution of one channel a group, one output each (approach A)."""

import ctypes

import torch
from torch import Tensor

from nanops import kernels
from nanops.kernels.convolution import _PTR, _Convolution, _last, structure
from nanops.rule import Rule
from nanops.windows import Windows


def serves(weight: Tensor, channels: int, groups: int, rule: Rule) -> bool:
    """Return whether a convolution is depthwise with one output a channel, and its rule one that this kernel knows."""
    return groups == channels == weight.shape[0] and weight.shape[1] == 1 and rule.fill == "mean" and not rule.uniform


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return the result, (N, C, *out), and where windows were skipped, boolean (N, C, *out); channels last in memory.

    Args:
        x: (N, C, *size), one of the dtypes of the compiled convolution.
        weight: (C, 1, *kernel).
    """
    n, channels = x.shape[:2]
    x32 = _last(x).detach().to(torch.float32).contiguous()
    wide = -(-channels // 16) * 16
    packed = torch.zeros(windows.taps + 1, wide)  # the weights of each tap, then the bias
    packed[:-1, :channels] = weight.detach().flatten(1).t()
    if bias is not None:
        packed[-1, :channels] = bias.detach()
    least = rule.least(1, windows.taps)
    s: _Convolution = structure(windows, n, channels, channels, channels, rule)
    y = torch.empty((n, *windows.counts, channels))
    skipped = torch.empty((n, *windows.counts, channels), dtype=torch.bool)
    s.x, s.y, s.least = x32.data_ptr(), y.data_ptr(), least.data_ptr()
    pointers = (_PTR(t.data_ptr()) for t in (packed, packed[-1], skipped))
    kernels.required().nan_depthwise(ctypes.byref(s), *pointers)
    return y.movedim(-1, 1).to(x.dtype), skipped.movedim(-1, 1)
