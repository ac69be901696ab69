"""In which order does torch store a result?"""

import torch
from torch import Tensor

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(dim: int) -> torch.memory_format | None:
    """Return the format of tensors (N, C, ...) of so many axes whose channels are last; None where torch has none."""
    return _FORMATS.get(dim)


def is_channels_last(x: Tensor, dims: int) -> bool:
    """Return whether torch would store its result of x channels last: by its strides; a single image only in 3-D.

    Args:
        x: (N, C, ...) or (C, ...), with `dims` axes behind C.
    """
    channel = x.dim() - dims - 1
    if channel == 0 and dims < 3:
        return False
    least = 0
    for axis in (channel, *range(x.dim() - 1, channel, -1), *range(channel)):
        if x.shape[axis] == 0 or x.stride(axis) < least or x.stride(channel) == 0:
            return False
        if axis < channel and least == x.stride(channel):
            return False  # one channel, one place: both orders are the same, and torch's own comes first
        least = x.stride(axis) * x.shape[axis]
    return True


def arrange(x: Tensor, last: bool) -> Tensor:
    """Return x (N, C, ...), copied where it is not in the order that is asked for."""
    if not last:
        return x.contiguous()
    ready = x.stride(1) == 1 and x.movedim(1, -1).is_contiguous()
    return x if ready else stored(x, last)


def stored(x: Tensor, last: bool) -> Tensor:
    """Return a contiguous x (N, C, ...), copied where channels are to be last."""
    return empty(x, tuple(x.shape), last).copy_(x) if last else x


def empty(x: Tensor, shape: tuple[int, ...], last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor of such a shape (N, C, ...) and order; device and dtype of x."""
    if not last:
        return x.new_empty(shape, dtype=dtype)
    return x.new_empty((shape[0], *shape[2:], shape[1]), dtype=dtype).movedim(-1, 1)


def memory_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    """Return the format of torch's own convolution of x: channels last where x or the weight is."""
    if x.dtype == torch.float64 and x.ndim == 5:
        return torch.contiguous_format
    last = channels_last(x.ndim)
    dims = x.ndim - 2
    if last is None or not (is_channels_last(x, dims) or is_channels_last(weight, dims)):
        return torch.contiguous_format
    return last
