"""Which single operators are timed, and on what?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """A call of torch and the shapes of its operands, which are drawn from a normal distribution.

    Args:
        name: What the rows call it; `convolution` at its start lets it be judged.
        call: Takes the operands in order.
        shapes: Of the operands; the first one is the activation.
        positive: Numbers of the operands that are made positive.
    """

    name: str
    call: Callable[..., Any]
    shapes: tuple[Shape, ...]
    positive: tuple[int, ...] = ()

    def operands(self, seed: int) -> list[Tensor]:
        """Return operands in the contiguous format."""
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(shape, generator=generator) for shape in self.shapes]
        return [t.abs() + 0.5 if i in self.positive else t for i, t in enumerate(drawn)]


def convolution(inputs: int, outputs: int, kernel: int, size: int) -> Operator:
    """Return a convolution with bias that keeps the size."""
    return Operator(
        f"convolution {inputs}->{outputs} {kernel}x{kernel} at {size}x{size}",
        lambda x, w, b: F.conv2d(x, w, b, padding=kernel // 2),
        ((1, inputs, size, size), (outputs, inputs, kernel, kernel), (outputs,)),
    )


def _max_pool(x: Tensor) -> Any:
    return F.max_pool2d(x, 2, return_indices=True)


PLANES = (1, 24, 256, 256)
OPERATORS = (
    convolution(24, 24, 3, 256),
    convolution(64, 64, 5, 64),
    convolution(71, 71, 3, 128),
    Operator("batch_norm (24, 256, 256)", F.batch_norm, (PLANES, *[(24,)] * 4), positive=(2,)),
    Operator("add (24, 256, 256)", torch.add, (PLANES, PLANES)),
    Operator("matmul 512x512x512", torch.mm, ((512, 512), (512, 512))),
    Operator("sum (24, 256, 256)", torch.sum, (PLANES,)),
    Operator("softmax over 24 channels (24, 256, 256)", lambda x: torch.softmax(x, 1), (PLANES,)),
    Operator("max_pool 2x2 with indices (24, 256, 256), exact", _max_pool, (PLANES,)),
)
