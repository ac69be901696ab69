"""Is there a NaN at all? Then torch's own operator will not do; and which operators let a NaN stay where it is?"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.jit._trace import is_tracing

from nanops.errors import InputError
from nanops.kernels.convolution import any_nan, read_by_kernel


def check_floating(x: Tensor, least: int, most: int | None, shape: str) -> None:
    """Refuse a tensor that cannot hold NaN, or has another number of axes.

    Raises:
        InputError: not floating point, or not from `least` to `most` axes; `shape` says what they should be.
    """
    if not x.is_floating_point():
        raise InputError(f"Expected x of a floating-point dtype, got {x.dtype}.")
    if x.dim() < least or (most is not None and x.dim() > most):
        raise InputError(f"Expected x of shape {shape}, got {tuple(x.shape)}.")


def known_clean(x: Tensor) -> bool:
    """Return whether x is known to have no NaN, which lets a caller return torch's own result.

    It is False while a graph is compiled or traced and on the meta device, where no value is known: every operator
    has a second way, without a branch, that gives the same numbers.
    """
    return not (torch.compiler.is_compiling() or is_tracing() or x.is_meta or has_nan(x))


def has_nan(x: Tensor) -> bool:
    """Return whether a floating-point x, whose values are known, has a NaN."""
    x = x.detach()
    if read_by_kernel(x):
        return any_nan(x)
    # A NaN survives any sum, which needs no mask; only a NaN of inf - inf has to be told from one of x. torch does not
    # sum eight-bit floats.
    with torch._C.DisableTorchFunction():  # a look of ours, no call of the model
        return bool(x.itemsize == 1 or x.sum().isnan()) and bool(x.isnan().any())


def kept_in_place(operator: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Return operator(x) of an elementwise operator, such that no NaN of x reaches a gradient.

    Its forward keeps a NaN where it is, but the gradient of a weight is a sum of products with x, and 0 * NaN is NaN.
    """
    learning = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *parameters))
    if not learning or known_clean(x):
        return operator(x)
    missing = x.isnan()
    y = operator(torch.where(missing, 0, x))
    return laid_out_as(y, torch.where(missing, torch.nan, y))


def laid_out_as(own: Tensor, y: Tensor) -> Tensor:
    """Return y with the strides of torch's own result, so that no layout depends on whether there is a NaN."""
    return y if y.stride() == own.stride() else torch.empty_like(own).copy_(y)
