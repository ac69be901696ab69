"""How many parameters and multiply-accumulates have a plain unit, the forms of a block, and a whole network?

Per voxel of a block's input, for p = c_i / 4: plain 27 c_i c_o, training and folded 4.5 c_i c_o + 2 c_o^2, fused
7.5 c_i c_o in three dimensions. A block pools behind its convolutions, where a plain unit has the stride in its own:
with a stride of 2 the unit has an eighth of these per voxel of its input, the block all of them.
"""

from collections.abc import Sequence
from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn

from analyses.models.fasterfusion import FORMS, WIDTH, Block, Channels
from mcaprobe.errors import InputError

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def parameters(network: nn.Module) -> int:
    """Return the numbers that are trained, each once; running statistics are none of them."""
    return sum(p.numel() for p in network.parameters())


def plain_parameters(dims: int, inputs: int, outputs: int) -> int:
    """Return the parameters of a convolution of width 3 with bias and an affine norm."""
    return WIDTH**dims * inputs * outputs + 3 * outputs


def block_parameters(dims: int, channels: Channels, form: str) -> int:
    """Return the parameters of a block in "training", "folded" or "fused" form."""
    return parameters(_block(dims, channels, form))


def plain_macs_per_voxel(dims: int, inputs: int, outputs: int) -> int:
    """Return the multiply-accumulates of a convolution of width 3 and stride 1, for one voxel."""
    return WIDTH**dims * inputs * outputs


def block_macs_per_voxel(dims: int, channels: Channels, form: str) -> int:
    """Return the multiply-accumulates of a block's convolutions for one voxel of its input."""
    return sum(m.weight.numel() for m in _block(dims, channels, form).modules() if isinstance(m, _CONV))


def multiply_accumulates(network: nn.Module, shape: Sequence[int]) -> int:
    """Return the products of a network's convolutions for one input, bias, norms and activations not counted.

    A product with padding counts. Values are not computed, so that any size is counted at once.

    Args:
        network: Its convolutions are modules of torch.
        shape: Of the input, (N, C, *size).
    """
    copy, found = deepcopy(network).to("meta"), 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        pixels = inputs[0] if isinstance(module, _TRANSPOSED) else output
        weight = module.get_parameter("weight")
        found += pixels.shape[0] * prod(pixels.shape[2:]) * weight.numel()

    for module in copy.modules():
        if isinstance(module, (*_CONV, *_TRANSPOSED)):
            module.register_forward_hook(count)
    with torch.no_grad():
        copy.eval()(torch.empty(tuple(shape), device="meta"))
    return found


def _block(dims: int, channels: Channels, form: str) -> Block:
    if form not in FORMS:
        raise InputError(f"Expected a form of {', '.join(FORMS)}, got {form!r}.")
    with torch.device("meta"):
        return FORMS[form](dims, channels)
