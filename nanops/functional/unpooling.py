"""The way back from a max pooling with ties: which positions get the value, NaN or zero?"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from nanops.errors import InputError, nearest
from nanops.functional import transforms
from nanops.functional.unpool_operators import in_torch, max_unpool_with_ties, windows_of
from nanops.windows import Size, expand

OVERLAPS = ("nan", "value")


def conservative_max_unpool2d(values: Tensor, ties: Tensor, kernel_size: Size, stride: Size | None = None,
                              padding: Size = 0, output_size: Size | None = None, *, overlap: str = "nan",
                              dilation: Size = 1) -> Tensor:  # fmt: skip
    """Return the image with each maximum at its place, and NaN where the place is ambiguous.

    Y is the value where the window has one maximum, NaN at every tied position where it has several or where its value
    is NaN, and 0 elsewhere (section 3, equation for Y). Where windows overlap (stride < kernel), `overlap` says what
    stands at a position of which several speak; the order in which they come does not matter.

    Args:
        values: Pooled values, (N, C, H', W') or (C, H', W').
        ties: Their bitmaps from `multi_max_pool2d` or `hybrid_max_pool2d`.
        kernel_size, stride, padding, dilation: Those of the pooling; `stride` is `kernel_size` by default.
        output_size: Of the image, with or without N and C; by default the least that the windows cover.
        overlap: "nan", a NaN wins, then the larger value; or "value", the larger value wins, and NaN stands only where
            no window has a value. Of two zeros the positive one is larger.

    Returns:
        Unpooled activations, (N, C, H, W) or (C, H, W), in the memory format of the values.

    Raises:
        InputError: such a shape, dtype or option is impossible, or values and ties do not match.
    """
    sizes = (kernel_size, stride, padding, output_size)
    return _call(conservative_max_unpool2d, 2, values, ties, sizes, overlap=overlap, dilation=dilation)


def conservative_max_unpool1d(values: Tensor, ties: Tensor, kernel_size: Size, stride: Size | None = None,
                              padding: Size = 0, output_size: Size | None = None, *, overlap: str = "nan",
                              dilation: Size = 1) -> Tensor:  # fmt: skip
    """As `conservative_max_unpool2d`, to (N, C, L) or (C, L)."""
    sizes = (kernel_size, stride, padding, output_size)
    return _call(conservative_max_unpool1d, 1, values, ties, sizes, overlap=overlap, dilation=dilation)


def conservative_max_unpool3d(values: Tensor, ties: Tensor, kernel_size: Size, stride: Size | None = None,
                              padding: Size = 0, output_size: Size | None = None, *, overlap: str = "nan",
                              dilation: Size = 1) -> Tensor:  # fmt: skip
    """As `conservative_max_unpool2d`, to (N, C, D, H, W) or (C, D, H, W)."""
    sizes = (kernel_size, stride, padding, output_size)
    return _call(conservative_max_unpool3d, 3, values, ties, sizes, overlap=overlap, dilation=dilation)


def _call(function: Callable[..., Tensor], dims: int, values: Tensor, ties: Tensor, sizes: tuple[Any, ...], *,
          overlap: str, dilation: Size) -> Tensor:  # fmt: skip
    """Return what the operator makes of the arguments of a function, or what a tracer of functions says."""
    if has_torch_function((values, ties)):
        return handle_torch_function(function, (values, ties), values, ties, *sizes, overlap=overlap, dilation=dilation)
    transforms.refuse_derivatives(values)
    kernel_size, stride, padding, output_size = sizes
    if overlap not in OVERLAPS:
        names = " or ".join(OVERLAPS)
        raise InputError(f"Expected overlap to be {names}, got {overlap!r}{nearest(overlap, OVERLAPS)}")
    kernel = expand(kernel_size, dims, "kernel_size")
    step = kernel if stride is None else expand(stride, dims, "stride")
    around, between = expand(padding, dims, "padding", 0), expand(dilation, dims, "dilation")
    size = (output_size,) * dims if isinstance(output_size, int) else output_size
    if transforms.watched():
        windows = windows_of(values, ties, kernel, step, around, between, None if size is None else tuple(size))
        return in_torch(values, ties, windows, overlap == "nan")
    return max_unpool_with_ties(
        values, ties, kernel, step, around, between, None if size is None else tuple(size), overlap == "nan"
    )
