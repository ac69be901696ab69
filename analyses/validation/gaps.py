"""How far is each window of a pooling from a tie? The least tolerance, of each kind, at which it is ambiguous.

With t1 allowed ties a window is ambiguous where its (t1 + 1)-th largest value lies within the tolerance of the largest:
its gap is the distance of these two, and a sweep over tolerances is a sweep over thresholds of the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.pooling import _MaxPoolNd

from mcaprobe.errors import InputError

KINDS = ("absolute", "relative", "ulps")


@dataclass(frozen=True)
class Pooling:
    """One pooling of a network on one image.

    Attributes:
        layer: Path of the module.
        values: The values of each window, largest first, float32, (1, C, h, w, taps); -inf for padding.
    """

    layer: str
    values: Tensor

    @property
    def taps(self) -> int:
        """Values of a window."""
        return self.values.shape[-1]

    def gaps(self, kind: str, max_ties: int) -> Tensor:
        """Return the gap of each window, float64 (1, C, h, w): infinite where it has too few values.

        Args:
            kind: `absolute`, |max - w|; `relative`, over |max|; `ulps`, representable numbers in between.
            max_ties: The paper's t1, below the number of taps.
        """
        most, other = self.values[..., 0], self.values[..., max_ties]
        if kind == "ulps":
            found = (rank(most) - rank(other)).double()
        else:
            found = most.double() - other.double()
            if kind == "relative":
                found = torch.where(found == 0, 0.0, found / most.double().abs())
        return torch.where(other == -torch.inf, torch.inf, found)


def rank(x: Tensor) -> Tensor:
    """Return the number of float32 values between 0 and x, with its sign, int64."""
    bits = x.contiguous().view(torch.int32).to(torch.int64)
    magnitude = bits & 0x7FFFFFFF
    return torch.where(bits < 0, -magnitude, magnitude)


@torch.inference_mode()
def poolings(network: nn.Module, x: Tensor) -> Iterator[Pooling]:
    """Yield the 2-D max-pools of a network, with the windows of one forward of x (1, C, H, W), in the order of calls.

    Raises:
        InputError: it has none as modules, or one with dilation, ceil_mode or without float32 inputs.
    """
    found: list[Pooling] = []

    def look(path: str, module: nn.MaxPool2d) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
            found.append(Pooling(path, windows(path, module, args[0])))

        handles.append(module.register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for path, module in network.named_modules():
            if isinstance(module, _MaxPoolNd):
                if not isinstance(module, nn.MaxPool2d) or module.ceil_mode or module.dilation not in (1, (1, 1)):
                    raise InputError(f"Expected 2-D max-pools without dilation and ceil_mode, got {path}: {module}.")
                look(path, module)
        if not handles:
            raise InputError(f"Expected a network with modules MaxPool2d, got a {type(network).__name__} without any.")
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    yield from found


def windows(path: str, module: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Return the values of each window of a pooling, largest first, (1, C, h, w, taps)."""
    if x.dtype != torch.float32:
        raise InputError(f"Expected float32 activations at {path}, got {x.dtype}.")
    kernel, stride, padding = (_pair(v) for v in (module.kernel_size, module.stride, module.padding))
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=-torch.inf)
    cut = padded.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(-2)
    return cut.sort(-1, descending=True).values


def _pair(v: int | tuple[int, int]) -> tuple[int, int]:
    return (v, v) if isinstance(v, int) else v
