"""The unpooling as an operator that torch can trace, compile and differentiate; unpooling.py has its functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nanops import kernels
from nanops.errors import InputError
from nanops.functional import by_taps
from nanops.functional.layout import arrange, empty, is_channels_last, stored
from nanops.functional.pool_operators import Ints, expect_images, expect_padding
from nanops.functional.ties import count, has, word
from nanops.kernels import pooling as compiled
from nanops.windows import Windows


def windows_of(values: Tensor, ties: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
               size: Ints | None) -> Windows:  # fmt: skip
    """Return the windows over the unpooled image, of the given size or of the least that they cover.

    Raises:
        InputError: impossible values, ties, padding or size.
    """
    dims = len(kernel)
    expect_images(values, dims, "values")
    expect_padding(padding, kernel)
    before = tuple(padding)
    windows = Windows((1,) * dims, tuple(kernel), tuple(stride), before, before, tuple(dilation))
    if ties.shape != values.shape or ties.dtype != word(windows.taps) or ties.device != values.device:
        raise InputError(
            f"Expected ties of shape {tuple(values.shape)} in {word(windows.taps)} on {values.device}, as the values, "
            f"got {tuple(ties.shape)} in {ties.dtype} on {ties.device}."
        )
    lead, counts = tuple(values.shape[: values.dim() - dims]), tuple(values.shape[values.dim() - dims :])
    widest = by_taps.canvas(windows, counts).size
    given = tuple(w - s + 1 for w, s in zip(widest, stride, strict=True)) if size is None else tuple(size)
    windows = replace(windows, size=given[-dims:])
    if given not in (given[-dims:], lead + given[-dims:]) or len(given) < dims or not _pools_to(windows, counts):
        raise InputError(f"Expected an output_size that pools to {counts} windows, got {given}.")
    return windows


def _pools_to(windows: Windows, counts: Sequence[int]) -> bool:
    """Return whether each axis has so many windows, their number rounded down or up."""
    modes = [replace(windows, ceil_mode=mode) for mode in (False, True)]
    return min(windows.size) > 0 and all(n in [w.along(axis) for w in modes] for axis, n in enumerate(counts))


@torch.library.custom_op("nanops::max_unpool_with_ties", mutates_args=())
def max_unpool_with_ties(values: Tensor, ties: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
                         size: Ints | None, nan_wins: bool) -> Tensor:  # fmt: skip
    """Return the unpooled image."""
    windows = windows_of(values, ties, kernel, stride, padding, dilation, size)
    if values.device.type != "cpu" or values.dtype == torch.float64 or kernels.library() is None:
        return in_torch(values, ties, windows, nan_wins)
    single = values.dim() == len(kernel) + 1
    v, t = (values.unsqueeze(0), ties.unsqueeze(0)) if single else (values, ties)
    last = is_channels_last(values, len(kernel))
    wide = arrange(v.resolve_neg().float(), last)
    y = empty(wide, (*v.shape[:2], *windows.size), last)
    if y.numel():
        compiled.unpool(wide, arrange(t, last), windows, y, nan_wins=nan_wins, last=last)
    y = y.to(values.dtype)
    return y[0] if single else y


def in_torch(values: Tensor, ties: Tensor, windows: Windows, nan_wins: bool) -> Tensor:
    """Return the unpooled image by torch's own operators."""
    single = values.dim() == len(windows.kernel) + 1
    v, t = (values.unsqueeze(0), ties.unsqueeze(0)) if single else (values, ties)
    y = stored(by_taps.unpool(v, t, windows, nan_wins), is_channels_last(values, len(windows.kernel)))
    return y[0] if single else y


@max_unpool_with_ties.register_fake
def _(values: Tensor, ties: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints | None,
      nan_wins: bool) -> Tensor:  # fmt: skip
    windows = windows_of(values, ties, kernel, stride, padding, dilation, size)
    single = values.dim() == len(kernel) + 1
    v = values.unsqueeze(0) if single else values
    y = empty(v, (*v.shape[:2], *windows.size), is_channels_last(values, len(kernel)))
    return y[0] if single else y


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, ties = inputs[:2]
    ctx.save_for_backward(values, ties, output)
    ctx.windows = windows_of(*inputs[:7])


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Each value gets the gradient of the position where it stands; equal ones of overlapping windows share it."""
    values, ties, y = ctx.saved_tensors
    dims, windows = len(ctx.windows.size), ctx.windows
    counts = values.shape[values.dim() - dims :]
    wide = by_taps.canvas(windows, tuple(counts))
    flat, inside = wide.indices(values.device)
    at = torch.zeros_like(ties, dtype=torch.int64).flatten(-dims)
    reaches = torch.zeros_like(at, dtype=torch.bool)
    bitmaps = ties.flatten(-dims)
    for tap in range(windows.taps):
        here = has(bitmaps, tap) & inside[:, tap]
        at = torch.where(here, flat[:, tap], at)
        reaches = reaches | here
    v = values.flatten(-dims)
    lead = values.shape[: values.dim() - dims]

    def stands(image: Tensor) -> Tensor:
        batch = image if image.dim() == dims + 2 else image.unsqueeze(0)
        return by_taps.crop(batch, wide.size).reshape(*lead, -1).gather(-1, at)

    mine = reaches & (count(bitmaps, windows.taps) == 1) & (stands(y) == v)
    sharing = torch.zeros((*lead, wide.volume), dtype=grad.dtype, device=grad.device).scatter_add(-1, at, mine.to(grad))
    share = stands(grad) / sharing.gather(-1, at).clamp(min=1)
    return (torch.where(mine, share, 0).reshape(values.shape), *(None,) * 7)


max_unpool_with_ties.register_autograd(_backward, setup_context=_remember)
