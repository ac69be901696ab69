"""What stands for torch's pools and unpools? The pooling of the paper that was asked for, and ties for indices."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from types import FunctionType
from typing import Any

from torch import Tensor

from nanops.conversion.options import Options
from nanops.conversion.place import Place, Pool, mark, may_hold_nan, pool_of, shape_of
from nanops.functional import pooling, unpooling
from nanops.tolerance import EXACT
from nanops.windows import expand

_AGGRESSIVE = {1: pooling.aggressive_max_pool1d, 2: pooling.aggressive_max_pool2d, 3: pooling.aggressive_max_pool3d}
_MULTI = {1: pooling.multi_max_pool1d, 2: pooling.multi_max_pool2d, 3: pooling.multi_max_pool3d}
_HYBRID = {1: pooling.hybrid_max_pool1d, 2: pooling.hybrid_max_pool2d, 3: pooling.hybrid_max_pool3d}
_UNPOOL = {1: unpooling.conservative_max_unpool1d, 2: unpooling.conservative_max_unpool2d,
           3: unpooling.conservative_max_unpool3d}  # fmt: skip


def max_pool(dims: int, with_indices: bool) -> Callable[..., Any]:
    """Return the replacement of a max-pool.

    Where the indices are asked for, "conservative" and "hybrid" give ties in their place. Where they are not, a
    conservative pool is torch's own with NaNs that never win, since conservative NaNs arise when unpooling.
    """

    def pool(
        at: Place, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        options = at.options
        assert options is not None
        kernel = expand(kernel_size, dims, "kernel_size")
        step = _step(stride, kernel)
        pad, between = expand(padding, dims, "padding", least=0), expand(dilation, dims, "dilation")
        window = (kernel, step, pad, between, ceil_mode)
        if with_indices and options.tied:
            values, ties = _tied(dims, options, input, window)
            return values, mark(ties, Pool(at.path or at.layer, shape_of(input)[-dims:], *window[:4]))
        found = _untied(at, options, dims, with_indices, input, window)
        return found if at.oracle is None else at.oracle(at, dims, found)

    return pool


def _untied(at: Place, options: Options, dims: int, with_indices: bool, input: Tensor, window: tuple[Any, ...]) -> Any:
    if options.pooling in ("aggressive", "hybrid"):
        found = _AGGRESSIVE[dims](input, *window, max_ties=options.max_ties, tolerance=options.tolerance)
    elif not may_hold_nan(input):
        return at.function(input, *window)
    else:
        # No window has more ties than values: the largest valid value, and its place, whatever ties with it.
        found = _AGGRESSIVE[dims](input, *window, max_ties=prod(window[0]), tolerance=EXACT)
    return found if with_indices else found[0]


def _tied(dims: int, options: Options, input: Tensor, window: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    if options.pooling == "hybrid":
        return _HYBRID[dims](input, *window, max_ties=options.max_ties, tolerance=options.tolerance)
    return _MULTI[dims](input, *window, tolerance=options.tolerance)


def max_unpool(dims: int) -> Callable[..., Any]:
    """Return the replacement of a max-unpool: of ties where its pool gave some, else torch's own, which copies NaN.

    Raises:
        ConversionError: from the replacement; indices of no converted pool, or another window than the pool's.
    """

    def unpool(at: Place, input: Tensor, indices: Tensor, *sizes: Any, **named: Any) -> Any:
        assert at.options is not None
        pool = pool_of(indices)
        if pool is not None:
            return _tied_unpool(dims, pool, at, input, indices, *sizes, **named)
        if at.options.tied:
            raise at.refuse(f"its indices come from no converted pool; the {at.options.pooling} unpooling needs "
                            "the ties of that pool as they are")  # fmt: skip
        found = at.function(input, indices, *sizes, **named)
        return found if at.oracle is None else at.oracle(at, dims, found)

    return unpool


def _tied_unpool(
    dims: int, pool: Pool, at: Place, input: Tensor, indices: Tensor, kernel_size: Any = None, stride: Any = None,
    padding: Any = 0, output_size: Any = None,
) -> Tensor:  # fmt: skip
    if not isinstance(at.function, FunctionType):
        raise at.refuse("it calls torch's internal max_unpool; call torch.nn.functional.max_unpool*d")
    kernel = expand(kernel_size, dims, "kernel_size")
    step = _step(stride, kernel)
    own = replace(pool, kernel=kernel, stride=step, padding=expand(padding, dims, "padding", least=0))
    if own != pool:
        raise at.refuse(
            f"it unpools kernel {own.kernel}, stride {own.stride}, padding {own.padding}, but its pool "
            f"{pool.layer} had kernel {pool.kernel}, stride {pool.stride}, padding {pool.padding}"
        )
    if shape_of(input) != shape_of(indices):
        raise at.refuse(f"it unpools values {shape_of(input)} at the ties {shape_of(indices)} of {pool.layer}")
    size = _size(at, input, own, dims, output_size)
    return _UNPOOL[dims](input, indices, kernel, step, own.padding, size, dilation=own.dilation)


def _step(stride: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    # An empty stride is how torch's internal functions spell None.
    return kernel if stride is None or stride in ((), []) else expand(stride, len(kernel), "stride")


def _size(at: Place, input: Tensor, pool: Pool, dims: int, output_size: Any) -> tuple[int, ...]:
    windows = shape_of(input)[-dims:]
    if output_size is None:
        geometry = zip(windows, pool.kernel, pool.stride, pool.padding, strict=True)
        size = tuple((n - 1) * s - 2 * p + k for n, k, s, p in geometry)
    else:
        size = tuple(int(n) for n in output_size)[-dims:]
    # torch's indices count along the axes of the pool's input: on other axes they mean other places.
    if size[1:] != pool.size[1:]:
        raise at.refuse(f"it unpools to {size} what {pool.layer} pooled from {pool.size}, where torch's own indices "
                        "mean other positions; give output_size")  # fmt: skip
    return size
