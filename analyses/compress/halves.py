"""What is a network at half its precision, or at half its width?"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


class Bfloat16(nn.Module):
    """A network of bfloat16 weights that takes and returns float32: `bfloat16` makes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output for x rounded to bfloat16, as float32."""
        out: Tensor = self.network(x.to(torch.bfloat16))
        return out.to(torch.float32)


def bfloat16(network: nn.Module) -> Bfloat16:
    """Return a copy that computes in bfloat16, in eval mode: weights, buffers and input are rounded, the output wide.

    Raises:
        InputError: a parameter that is not float32, or nothing to round.
    """
    parameters = dict(network.named_parameters())
    if not parameters:
        raise InputError(f"Expected a network with weights, got a {type(network).__name__} without any.")
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise InputError(f"Expected float32 parameters, got {parameter.dtype} in {name!r}.")
    return Bfloat16(deepcopy(network).to(torch.bfloat16)).eval()


def half_width(build: Callable[[Sequence[int]], Network], features: Sequence[int]) -> Network:
    """Return a network of half as many channels at each stage: what `build` makes of features / 2.

    Raises:
        InputError: a number of channels that is odd or below 2, with its place.
    """
    for i, n in enumerate(features):
        if n < 2 or n % 2:
            raise InputError(f"Expected even numbers of channels, got {n} at stage {i} of {tuple(features)}.")
    return build(tuple(n // 2 for n in features))
