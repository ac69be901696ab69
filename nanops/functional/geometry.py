"""Where do the windows of a convolution, or of a transposed one, lie? What torch's own call is told, and its parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from nanops.phases import Axes, phases, transposed_size
from nanops.windows import Windows

_CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
_TRANSPOSE = {
    1: torch.nn.functional.conv_transpose1d, 2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """An ordinary convolution that makes some of the outputs.

    Args:
        number: Tells the parts of one call apart.
        outputs: Where they lie in the result, one slice an axis.
        windows: None where nothing reaches the outputs: they are the bias.
        weight: (O, C / groups, *kernel), of these windows.
    """

    number: int
    outputs: tuple[slice, ...]
    windows: Windows | None
    weight: Tensor

    @property
    def where(self) -> tuple[Any, ...]:
        """The index of the outputs in a tensor (N, O, *out)."""
        return (..., *self.outputs)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution's steps; every tuple has one entry an axis.

    Args:
        before, after: Padding at the two ends; of a transposed convolution what is cut from the ends of the result.
    """

    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def name(self) -> str:
        """The public operator."""
        return f"nan_conv{'_transpose' if self.transposed else ''}{len(self.stride)}d"

    def outputs(self, weight: Tensor) -> int:
        """Return the output channels."""
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def out(self, x: Tensor, weight: Tensor) -> tuple[int, ...]:
        """Return the size of the result.

        Raises:
            InputError: no window fits.
        """
        if self.transposed:
            return transposed_size(
                tuple(x.shape[2:]), tuple(weight.shape[2:]), self.stride, self.before, self.after, self.dilation
            )
        return self._windows(x, weight).counts

    def stock(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the result of torch's own operator."""
        s, b, a, d = self.stride, self.before, self.after, self.dilation
        if self.transposed:
            more = tuple(i - j for i, j in zip(b, a, strict=True))
            return _TRANSPOSE[len(s)](x, weight, bias, s, b, more, self.groups, d)  # type: ignore[operator,no-any-return]
        # Only padding="same" has ends that differ.
        return _CONV[len(s)](x, weight, bias, s, b if a == b else "same", d, self.groups)  # type: ignore[operator,no-any-return]

    def parts(self, x: Tensor, weight: Tensor) -> Iterator[Part]:
        """Yield ordinary convolutions whose outputs together are the result."""
        if not self.transposed:
            yield Part(0, (slice(None),) * len(self.stride), self._windows(x, weight), weight)
            return
        w = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)
        axes = list(range(2, w.ndim))
        sizes = tuple(x.shape[2:]), tuple(weight.shape[2:])
        for number, phase in enumerate(phases(*sizes, self.stride, self.before, self.after, self.dilation)):
            yield Part(number, phase.outputs, phase.windows, w[(..., *phase.taps)].flip(axes))

    def macs(self, part: Part) -> int:
        """Return the multiply-accumulates of one window of a part."""
        return 0 if part.windows is None else prod(part.weight.shape[1:]) * (part.weight.shape[0] // self.groups)

    def windows(self, size: Axes, kernel: Axes) -> Windows:
        """Return the windows over images of this size; of a convolution that is not transposed."""
        make = _windows if all(type(n) is int for n in size) else _windows.__wrapped__  # a graph's sizes have no hash
        return make(size, kernel, self.stride, self.before, self.after, self.dilation)

    def _windows(self, x: Tensor, weight: Tensor) -> Windows:
        return self.windows(tuple(x.shape[2:]), tuple(weight.shape[2:]))


@lru_cache(maxsize=1024)
def _windows(size: Axes, kernel: Axes, stride: Axes, before: Axes, after: Axes, dilation: Axes) -> Windows:
    return Windows(size, kernel, stride, before, after, dilation)
