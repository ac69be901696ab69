"""Which positions does each window cover? The only index arithmetic of the operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from nanops.errors import InputError

Size = int | Sequence[int]


def expand(value: Size, dims: int, name: str, least: int = 1) -> tuple[int, ...]:
    """Return one whole number an axis, from one number or `dims` of them.

    Raises:
        InputError: another count of numbers, or one that is no integer or below `least`.
    """
    found = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(found) == 1:
        found *= dims
    if len(found) != dims or not all(isinstance(v, int) and v >= least for v in found):
        raise InputError(f"Expected {name} to be one integer or {dims}, each at least {least}, got {value!r}.")
    return found


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after each axis that keeps its size at stride 1, as torch's padding="same"."""
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


@dataclass(frozen=True)
class Windows:
    """Windows that slide over an image; every tuple has one entry an axis.

    Args:
        size: Of the image.
        before, after: Padding at the two ends.
        ceil_mode: Whether a window may hang over the end (torch's rule: it must start inside the image or before it).
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @cached_property
    def taps(self) -> int:
        """Positions in one window."""
        return prod(self.kernel)

    @cached_property
    def volume(self) -> int:
        """Positions in the image."""
        return prod(self.size)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Windows along each axis.

        Raises:
            InputError: no window fits.
        """
        found = tuple(self.along(a) for a in range(len(self.size)))
        if min(found) < 1:
            extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
            padded = tuple(n + b + a for n, b, a in zip(self.size, self.before, self.after, strict=True))
            raise InputError(f"Expected an image of at least {extent} after padding, got {padded}.")
        return found

    def along(self, axis: int) -> int:
        """Return the windows along one axis, below 1 where none fits."""
        size, stride, before = self.size[axis], self.stride[axis], self.before[axis]
        room = size + before + self.after[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        if not self.ceil_mode:
            return room // stride + 1
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= size + before else count

    def positions(self, axis: int, device: torch.device | str = "cpu") -> Tensor:
        """Return the coordinate that each tap of each window has, (windows, kernel); outside the image where padded."""
        starts = torch.arange(self.counts[axis], device=device) * self.stride[axis] - self.before[axis]
        return starts[:, None] + torch.arange(self.kernel[axis], device=device) * self.dilation[axis]

    def inside(self, device: torch.device | str = "cpu") -> Tensor:
        """Return how many taps of each window lie inside the image, int64, one axis for each of the image's."""
        count = torch.ones((), dtype=torch.int64, device=device)
        for axis, size in enumerate(self.size):
            at = self.positions(axis, device)
            count = count[..., None] * ((at >= 0) & (at < size)).sum(1)
        return count

    def indices(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return the flat index in the image of each tap of each window, and whether it lies inside.

        Returns:
            Two tensors (windows, taps), in the order of the axes; the index is 0 where the tap lies outside.
        """
        dims = len(self.size)
        flat = torch.zeros((1,) * (2 * dims), dtype=torch.int64, device=device)
        inside = torch.ones((1,) * (2 * dims), dtype=torch.bool, device=device)
        for axis in range(dims):
            shape = [1] * (2 * dims)
            shape[axis], shape[dims + axis] = self.counts[axis], self.kernel[axis]
            at = self.positions(axis, device).reshape(shape)
            flat = flat * self.size[axis] + at
            inside = inside & (at >= 0) & (at < self.size[axis])
        shape = [prod(self.counts), self.taps]
        return torch.where(inside, flat, 0).reshape(shape), inside.reshape(shape)
