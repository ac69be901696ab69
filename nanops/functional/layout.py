"""In which order does torch store a result?"""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Return whether torch would store the pooled x (N, C, ...) with its channels last: strides decide, as in torch."""
    order = (1, *range(x.dim() - 1, 1, -1), 0)
    least = 0
    for axis in order:
        if x.shape[axis] == 0 or x.stride(axis) < least or (axis == 1 and x.stride(1) == 0):
            return False
        if axis == 0 and least == x.stride(1):
            return False  # one channel, one place: both orders are the same, and torch's own comes first
        least = x.stride(axis) * max(1, x.shape[axis])
    return True


def arrange(x: Tensor, last: bool) -> Tensor:
    """Return x, copied where its channels are not last, or not before the places."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x.contiguous()


def empty(x: Tensor, shape: tuple[int, ...], last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of such a shape (N, C, ...) and order; device and dtype of x."""
    if not last:
        return x.new_empty(shape, dtype=dtype)
    return x.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype).movedim(-1, 1)
