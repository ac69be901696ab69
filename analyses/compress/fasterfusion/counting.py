"""How many parameters and multiply-accumulates have a plain unit and the forms of a block?

Per voxel of a block's input, for p = c_i / 4: plain 27 c_i c_o, training and folded 4.5 c_i c_o + 2 c_o^2, fused
7.5 c_i c_o in three dimensions. A block pools behind its convolutions, where a plain unit has the stride in its own:
with a stride of 2 the unit has an eighth of these per voxel of its input, the block all of them.

Whole networks are counted by analyses/compress/counting.py.
"""

import torch
from torch import nn

from analyses.models.fasterfusion import FORMS, WIDTH, Block, Channels
from mcaprobe.errors import InputError

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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


def _block(dims: int, channels: Channels, form: str) -> Block:
    if form not in FORMS:
        raise InputError(f"Expected a form of {', '.join(FORMS)}, got {form!r}.")
    with torch.device("meta"):
        return FORMS[form](dims, channels)
