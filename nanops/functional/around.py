"""A NaN convolution together with what stands before and behind it: an activation, a batch norm, a maximum.

A converted network that skips most of its windows spends its time on reading and writing whole images for these: in one
call the image behind the activation is never written, and the others are done while an output is in cache.
"""

from math import prod

import torch
from torch import Tensor

from nanops.functional.geometry import Geometry
from nanops.kernels.convolution import Around, Job, any_nan, worthwhile
from nanops.rule import Rule


def eligible(x: Tensor) -> bool:
    """Return whether a tensor can be the image of such a call: float32 (N, C, H, W) on the processor, channels last.

    One of a single channel is for the depthwise kernel.
    """
    images = x.dim() == 4 and x.shape[1] > 1 and x.numel() > 0
    return images and ordinary(x) and x.is_contiguous(memory_format=torch.channels_last)


def ordinary(t: Tensor | None) -> bool:
    """Return whether a tensor can be handed to the kernel, a vector without gaps; there may be none."""
    if t is None:
        return True
    known = type(t) in (Tensor, torch.nn.Parameter) and t.dtype is torch.float32 and t.is_cpu and not t.is_neg()
    return known and (t.dim() != 1 or t.is_contiguous())


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rule: Rule, around: Around
) -> Tensor | None:
    """Return the result, or None where so little can be skipped that torch's own operators are faster.

    Args:
        x: As `eligible` says, before the activation.
        weight: (O, C, h, w).
        geometry: Of one group.
        rule: With the fill "mean".
    """
    if not rule.uniform and not any_nan(x):
        return None
    windows = geometry.windows(tuple(x.shape[2:]), tuple(weight.shape[2:]))
    job = Job(x, weight, windows, 1, rule, (0, 0))
    if not worthwhile([job.found], x.shape[0] * prod(windows.counts)):
        return None
    return job.convolve(bias, torch.float32, around)
