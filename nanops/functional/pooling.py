"""Max pooling that says where the maximum is ambiguous: which positions of each window tie with the largest value?

A NaN never wins and never ties. A window without a valid value is NaN, and all its positions in the image tie.
Infinities are values. Padding is never chosen. Where no NaN is present the values are torch's own, bit for bit.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from nanops.errors import InputError
from nanops.functional import transforms
from nanops.functional.pool_operators import (
    UNLIMITED,
    in_torch,
    max_pool_with_indices,
    max_pool_with_ties,
    windows_of,
)
from nanops.tolerance import PAPER, Tolerance
from nanops.windows import Size, expand

Pair = tuple[Tensor, Tensor]


def aggressive_max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                          dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                          tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """Return each window's maximum and its index, or NaN where the maximum is ambiguous.

    A window is ambiguous when more than `max_ties` (the paper's t1) of its values lie within `tolerance` of the largest
    (section 4, equation for Y'). Its index is then its own first position in the image, not the paper's (0, 0), so that
    an unpooling puts the NaN where it came from.

    Args:
        x: Activations, (N, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As torch's max_pool2d; `stride` is `kernel_size` by default.
        max_ties: At least 1.
        tolerance: How near a value must be to the largest to tie; the paper's by default.

    Returns:
        Pooled values, and flat indices into each (H, W) image in int64; both (N, C, H', W') or (C, H', W').

    Raises:
        InputError: such a shape, dtype or option is impossible.
    """
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(aggressive_max_pool2d, max_pool_with_indices, 2, x, sizes, max_ties=max_ties, tolerance=tolerance)


def aggressive_max_pool1d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                          dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                          tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `aggressive_max_pool2d`, of x (N, C, L) or (C, L)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(aggressive_max_pool1d, max_pool_with_indices, 1, x, sizes, max_ties=max_ties, tolerance=tolerance)


def aggressive_max_pool3d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                          dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                          tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `aggressive_max_pool2d`, of x (N, C, D, H, W) or (C, D, H, W)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(aggressive_max_pool3d, max_pool_with_indices, 3, x, sizes, max_ties=max_ties, tolerance=tolerance)


def multi_max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                     dilation: Size = 1, ceil_mode: bool = False, *, tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """Return each window's maximum and the positions that tie with it (section 3, Multi Pooling).

    Args:
        x: Activations, (N, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As torch's max_pool2d; `stride` is `kernel_size` by default.
        tolerance: How near a value must be to the largest to tie; the paper's by default.

    Returns:
        Pooled values, and one bitmap a window: bit t is set where tap t ties, taps counted in row-major order. It is
        uint8, int16, int32 or int64, the first that has enough bits. Both (N, C, H', W') or (C, H', W').

    Raises:
        InputError: such a shape, dtype or option is impossible, or a window has more than 64 taps.
    """
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(multi_max_pool2d, max_pool_with_ties, 2, x, sizes, tolerance=tolerance)


def multi_max_pool1d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                     dilation: Size = 1, ceil_mode: bool = False, *, tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `multi_max_pool2d`, of x (N, C, L) or (C, L)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(multi_max_pool1d, max_pool_with_ties, 1, x, sizes, tolerance=tolerance)


def multi_max_pool3d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                     dilation: Size = 1, ceil_mode: bool = False, *, tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `multi_max_pool2d`, of x (N, C, D, H, W) or (C, D, H, W)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(multi_max_pool3d, max_pool_with_ties, 3, x, sizes, tolerance=tolerance)


def hybrid_max_pool2d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                      dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                      tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """Return values as `aggressive_max_pool2d` and ties as `multi_max_pool2d`, from the same arguments.

    Ambiguous windows are NaN at once, and the unpooling puts NaN at all their tied positions.
    """
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(hybrid_max_pool2d, max_pool_with_ties, 2, x, sizes, max_ties=max_ties, tolerance=tolerance)


def hybrid_max_pool1d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                      dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                      tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `hybrid_max_pool2d`, of x (N, C, L) or (C, L)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(hybrid_max_pool1d, max_pool_with_ties, 1, x, sizes, max_ties=max_ties, tolerance=tolerance)


def hybrid_max_pool3d(x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
                      dilation: Size = 1, ceil_mode: bool = False, *, max_ties: int = 1,
                      tolerance: Tolerance = PAPER) -> Pair:  # fmt: skip
    """As `hybrid_max_pool2d`, of x (N, C, D, H, W) or (C, D, H, W)."""
    sizes = (kernel_size, stride, padding, dilation, ceil_mode)
    return _call(hybrid_max_pool3d, max_pool_with_ties, 3, x, sizes, max_ties=max_ties, tolerance=tolerance)


def _call(function: Callable[..., Pair], operator: Callable[..., Pair], dims: int, x: Tensor, sizes: tuple[Any, ...],
          **options: Any) -> Pair:  # fmt: skip
    """Return what the operator makes of the arguments of a function, or what a tracer of functions says."""
    if has_torch_function_unary(x):
        return handle_torch_function(function, (x,), x, *sizes, **options)
    transforms.refuse_derivatives(x)
    kernel_size, stride, padding, dilation, ceil_mode = sizes
    kernel = expand(kernel_size, dims, "kernel_size")
    step = kernel if stride is None else expand(stride, dims, "stride")
    around, between = expand(padding, dims, "padding", 0), expand(dilation, dims, "dilation")
    max_ties, tolerance = options.get("max_ties", UNLIMITED), options["tolerance"]
    if not isinstance(tolerance, Tolerance):
        raise InputError(f"Expected tolerance to be a nanops.tolerance.Tolerance, got {tolerance!r}.")
    if not isinstance(max_ties, int) or max_ties < 1:
        raise InputError(f"Expected max_ties to be an integer of at least 1, got {max_ties!r}.")
    if transforms.watched():
        windows = windows_of(x, kernel, step, around, between, bool(ceil_mode))
        return in_torch(x, windows, tolerance, max_ties, bitmap=operator is max_pool_with_ties)
    return operator(x, kernel, step, around, between, bool(ceil_mode), max_ties, tolerance.kind, float(tolerance.value))
