"""What is the mean of a region with NaN? With NaN as zeros, as the paper has it, or of the valid values."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanops.errors import InputError, expect_choice
from nanops.functional.averages import average_valid
from nanops.functional.presence import check_floating, known_clean
from nanops.windows import Size, expand

POLICIES = ("zero", "mean")
_ADAPTIVE: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
_SLIDING: tuple[Any, ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
OutputSize = int | Sequence[int | None] | None


def nan_adaptive_avg_pool1d(x: Tensor, output_size: OutputSize, *, policy: str = "zero") -> Tensor:
    """Return the means of regions that divide x, (N, C, L) or (C, L), into `output_size` parts.

    Args:
        policy: "zero" counts NaN as 0, which the paper does before Xception's pooling; "mean" is the mean of the
            valid values, NaN where a region has none.
    Returns:
        As `torch.nn.functional.adaptive_avg_pool1d`, with its bits where a region has no NaN.
    Raises:
        InputError: a tensor, size or policy other than these.
    """
    return _adaptive(x, output_size, policy, 1)


def nan_adaptive_avg_pool2d(x: Tensor, output_size: OutputSize, *, policy: str = "zero") -> Tensor:
    """Return `nan_adaptive_avg_pool1d` for (N, C, H, W) or (C, H, W); None in `output_size` keeps an axis."""
    return _adaptive(x, output_size, policy, 2)


def nan_adaptive_avg_pool3d(x: Tensor, output_size: OutputSize, *, policy: str = "zero") -> Tensor:
    """Return `nan_adaptive_avg_pool1d` for (N, C, D, H, W) or (C, D, H, W); None in `output_size` keeps an axis."""
    return _adaptive(x, output_size, policy, 3)


def nan_avg_pool1d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    policy: str = "zero",
) -> Tensor:
    """Return the means of sliding windows of x, (N, C, L) or (C, L).

    Args:
        policy: As in `nan_adaptive_avg_pool1d`; "mean" wants no padding, or `count_include_pad=False`.
    Returns:
        As `torch.nn.functional.avg_pool1d`, with its bits where a window has no NaN.
    Raises:
        InputError: a tensor, window or policy other than these.
    """
    return _sliding(x, kernel_size, stride, padding, ceil_mode, count_include_pad, policy, 1)


def nan_avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    policy: str = "zero",
) -> Tensor:
    """Return `nan_avg_pool1d` for (N, C, H, W) or (C, H, W); "mean" wants no `divisor_override`."""
    return _sliding(x, kernel_size, stride, padding, ceil_mode, count_include_pad, policy, 2, divisor_override)


def nan_avg_pool3d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    policy: str = "zero",
) -> Tensor:
    """Return `nan_avg_pool1d` for (N, C, D, H, W) or (C, D, H, W); "mean" wants no `divisor_override`."""
    return _sliding(x, kernel_size, stride, padding, ceil_mode, count_include_pad, policy, 3, divisor_override)


def _adaptive(x: Tensor, output_size: OutputSize, policy: str, dims: int) -> Tensor:
    _check(x, policy, dims)
    sizes = [output_size] * dims if output_size is None or isinstance(output_size, int) else list(output_size)
    if len(sizes) == 1:
        sizes *= dims
    if len(sizes) != dims or any(s is not None and (not isinstance(s, int) or s < 1) for s in sizes):
        raise InputError(f"Expected output_size to be one integer or {dims}, each at least 1, got {output_size}.")
    found = [n if s is None else s for s, n in zip(sizes, x.shape[-dims:], strict=True)]
    return _pool(lambda t: _ADAPTIVE[dims - 1](t, found), x, policy)


def _sliding(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    policy: str,
    dims: int,
    divisor: int | None = None,
) -> Tensor:
    _check(x, policy, dims)
    kernel = expand(kernel_size, dims, "kernel_size")
    step = kernel if stride is None else expand(stride, dims, "stride")
    pad = expand(padding, dims, "padding", least=0)
    if any(2 * p > k for p, k in zip(pad, kernel, strict=True)):
        raise InputError(f"Expected padding of at most half of the kernel {kernel}, got {pad}.")
    if policy == "mean" and any(pad) and count_include_pad:
        raise InputError(f'Expected count_include_pad=False for padding with policy "mean", got padding {pad}.')
    if policy == "mean" and divisor is not None:
        raise InputError(f'Expected no divisor_override with policy "mean", got {divisor}.')
    options: dict[str, int | None] = {} if dims == 1 else {"divisor_override": divisor}
    return _pool(lambda t: _SLIDING[dims - 1](t, kernel, step, pad, ceil_mode, count_include_pad, **options), x, policy)


def _pool(average: Callable[[Tensor], Tensor], x: Tensor, policy: str) -> Tensor:
    if policy == "mean":
        return average_valid(average, x, 1)
    return average(x if known_clean(x) else torch.where(x.isnan(), 0, x))


def _check(x: Tensor, policy: str, dims: int) -> None:
    expect_choice("policy", policy, POLICIES)
    check_floating(x, dims + 1, dims + 2, f"(N, C, ...) or (C, ...) with {dims} spatial axes")
