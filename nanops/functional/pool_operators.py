"""The poolings as operators that torch can trace, compile and differentiate; pooling.py has the functions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanops import kernels
from nanops.errors import InputError
from nanops.functional import by_taps
from nanops.functional.layout import arrange, empty, is_channels_last, stored
from nanops.functional.ties import word
from nanops.kernels import pooling as compiled
from nanops.tolerance import Tolerance
from nanops.windows import Windows

UNLIMITED = 2**31 - 1  # ties that are allowed where no number of them makes a window ambiguous
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
AXES = ("L", "H, W", "D, H, W")
Ints = Sequence[int]


def expect_images(x: Tensor, dims: int, name: str) -> None:
    """Raise InputError where x is no batch of images, nor one of them, in a float format."""
    if x.dim() not in (dims + 1, dims + 2) or 0 in x.shape[x.dim() - dims - 1 :]:
        axes = AXES[dims - 1]
        raise InputError(f"Expected {name} of shape (N, C, {axes}) or (C, {axes}), with only N zero, "
                         f"got {tuple(x.shape)}.")  # fmt: skip
    if x.dtype not in DTYPES:
        raise InputError(f"Expected {name} in float16, bfloat16, float32 or float64, got {x.dtype}.")


def expect_padding(padding: Ints, kernel: Ints) -> None:
    """Raise InputError where a window could lie in the padding alone."""
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise InputError(f"Expected padding of at most half the kernel {tuple(kernel)}, got {tuple(padding)}.")


def windows_of(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool) -> Windows:
    """Return the windows over x; InputError where x or they are impossible."""
    expect_images(x, len(kernel), "x")
    expect_padding(padding, kernel)
    size = tuple(x.shape[x.dim() - len(kernel) :])
    before = tuple(padding)
    return Windows(size, tuple(kernel), tuple(stride), before, before, tuple(dilation), ceil_mode)


def reached(windows: Windows) -> bool:
    """Return whether each window has a tap inside the image; only dilation can leave one without."""
    return max(windows.dilation) == 1 or bool(windows.indices()[1].any(1).all())


def _pool(x: Tensor, windows: Windows, tolerance: Tolerance, max_ties: int, bits: torch.dtype | None
          ) -> tuple[Tensor, Tensor]:  # fmt: skip
    dims = len(windows.kernel)
    last = is_channels_last(x, dims)
    batch = arrange(x if x.dim() == dims + 2 else x.unsqueeze(0), last)
    shape = (*batch.shape[:2], *windows.counts)
    in_ulps = tolerance.kind == "ulps" and tolerance.value > 0
    fits = batch.device.type == "cpu" and x.dtype != torch.float64 and not (in_ulps and x.dtype == torch.float16)
    if kernels.library() is None or not fits or batch[:1, :1].numel() > compiled.LARGEST_IMAGE or not reached(windows):
        values, chosen = (stored(y, last) for y in by_taps.pool(batch, windows, tolerance, max_ties, bits))
    else:
        if in_ulps and x.dtype == torch.bfloat16:  # whose numbers are every 65536th of float32
            tolerance = Tolerance("ulps", tolerance.value * 2**16)
        wide = arrange(batch.resolve_neg().float(), last)
        values, chosen = empty(wide, shape, last), empty(wide, shape, last, bits or torch.int64)
        if values.numel():
            compiled.pool(wide, windows, tolerance, max_ties, values, chosen, bitmap=bits is not None,
                          last=last)  # fmt: skip
        values = values.to(x.dtype)
    return (values, chosen) if x.dim() == dims + 2 else (values[0], chosen[0])


def in_torch(x: Tensor, windows: Windows, tolerance: Tolerance, max_ties: int, *, bitmap: bool
             ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return values, and flat indices or bitmaps, by torch's own operators."""
    dims = len(windows.kernel)
    batch = x if x.dim() == dims + 2 else x.unsqueeze(0)
    found = by_taps.pool(batch, windows, tolerance, max_ties, word(windows.taps) if bitmap else None)
    values, chosen = (stored(y, is_channels_last(x, dims)) for y in found)
    return (values, chosen) if x.dim() == dims + 2 else (values[0], chosen[0])


def _like(x: Tensor, windows: Windows, bits: torch.dtype | None) -> tuple[Tensor, Tensor]:
    dims = len(windows.kernel)
    batch, last = x if x.dim() == dims + 2 else x.unsqueeze(0), is_channels_last(x, dims)
    shape = (*batch.shape[:2], *windows.counts)
    values, chosen = empty(batch, shape, last), empty(batch, shape, last, bits or torch.int64)
    return (values, chosen) if x.dim() == dims + 2 else (values[0], chosen[0])


@torch.library.custom_op("nanops::max_pool_with_indices", mutates_args=())
def max_pool_with_indices(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool,
                          max_ties: int, kind: str, amount: float) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return values and flat indices."""
    windows = windows_of(x, kernel, stride, padding, dilation, ceil_mode)
    return _pool(x, windows, Tolerance(kind, amount), max_ties, None)


@torch.library.custom_op("nanops::max_pool_with_ties", mutates_args=())
def max_pool_with_ties(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool,
                       max_ties: int, kind: str, amount: float) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return values and bitmaps of ties."""
    windows = windows_of(x, kernel, stride, padding, dilation, ceil_mode)
    return _pool(x, windows, Tolerance(kind, amount), max_ties, word(windows.taps))


@max_pool_with_indices.register_fake
def _(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool, *_: Any
      ) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _like(x, windows_of(x, kernel, stride, padding, dilation, ceil_mode), None)


@max_pool_with_ties.register_fake
def _(x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool, *_: Any
      ) -> tuple[Tensor, Tensor]:  # fmt: skip
    windows = windows_of(x, kernel, stride, padding, dilation, ceil_mode)
    return _like(x, windows, word(windows.taps))


def _remember_indices(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output)
    ctx.geometry, ctx.shape = inputs[1:6], inputs[0].shape
    ctx.windows = windows_of(inputs[0], *ctx.geometry)


def _remember_image(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[0])
    ctx.geometry, ctx.tolerance = inputs[1:6], inputs[7:]
    ctx.windows = windows_of(inputs[0], *ctx.geometry)


def _back(grad: Tensor, values: Tensor, indices: Tensor, windows: Windows, shape: torch.Size) -> Tensor:
    """Return the gradient of the image: at the place of each maximum that is no NaN."""
    through = torch.where(values.isnan(), 0, grad)
    if not reached(windows):
        inside = windows.indices(grad.device)[1].any(1).reshape(windows.counts)
        through = torch.where(inside, through, 0)
    dims = len(windows.size)
    flat = grad.new_zeros((*shape[: len(shape) - dims], windows.volume))
    flat = flat.scatter_add(-1, indices.flatten(-dims), through.flatten(-dims))
    return flat.reshape(shape)


def _backward_indices(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    values, indices = ctx.saved_tensors
    return (_back(grad, values, indices, ctx.windows, ctx.shape), *(None,) * 8)


def _backward_ties(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    x, values = ctx.saved_tensors
    _, indices = max_pool_with_indices(x.detach(), *ctx.geometry, UNLIMITED, *ctx.tolerance)
    return (_back(grad, values, indices, ctx.windows, x.shape), *(None,) * 8)


max_pool_with_indices.register_autograd(_backward_indices, setup_context=_remember_indices)
max_pool_with_ties.register_autograd(_backward_ties, setup_context=_remember_image)
