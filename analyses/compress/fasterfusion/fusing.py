"""Which two convolutions, or three, compute what a trained FasterFusion block computes?

With scale = gamma / sqrt(var + eps), shift = beta - scale mean and the matrix of the last convolution A = [A3 | A1]
behind the q channels of the spatial branch:

    W3' = A3 diag(scale3) W3    b3' = A3 (scale3 b3 + shift3)
    W1' = A1 diag(scale1) W1    b1' = A1 (scale1 b1 + shift1) + b_out

All is computed in float64 and rounded once, to the block's dtype. Exact up to that for batch norm in eval mode only: in
training mode, and always in instance norm, scale and shift depend on the input.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from analyses.models.fasterfusion import Block, FoldedBlock, FusedBlock, TrainingBlock
from analyses.models.fasterfusion_nans import Convolution
from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
Change = Callable[[TrainingBlock, Tensor, Tensor], Block]


def fuse(network: Network) -> Network:
    """Return a copy of a network in which every block in training form is fused; the network stays as it is.

    Raises:
        InputError: no such block; one whose norm is no batch norm, has no running statistics, or is in training mode; a
            converted network.
    """
    return _with_other_blocks(network, _fused)


def fold(network: Network) -> Network:
    """Return a copy of a network in whose blocks batch norm is part of the last convolution; raises as `fuse` does."""
    return _with_other_blocks(network, _folded)


def _with_other_blocks(network: Network, change: Change) -> Network:
    expect_unconverted(network)
    blocks = {path: m for path, m in network.named_modules() if isinstance(m, TrainingBlock)}
    if not blocks:
        raise InputError(f"Expected a network with FasterFusion blocks in training form, got a "
                         f"{type(network).__name__} without one.")  # fmt: skip
    norms = {path: _affine(f"{path}.norm" if path else "norm", block) for path, block in blocks.items()}
    # A deep copy takes what it finds in its memo as the copy, wherever the block is used.
    memo = {id(block): _like(block, change, *norms[path]) for path, block in blocks.items()}
    return deepcopy(network, memo)  # type: ignore[arg-type]


def _like(block: TrainingBlock, change: Change, scale: Tensor, shift: Tensor) -> Block:
    """Return another form of a block, with its dtype, its mode and what it does about NaN."""
    with torch.device("meta"):  # initial weights would draw from the global generator, for nothing
        other = change(block, scale, shift)
    other.nan_threshold = block.nan_threshold
    return other.to(block.spatial.weight.dtype).train(block.training)


def _affine(path: str, block: TrainingBlock) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a block's norm, float64 (2 c_o,).

    Raises:
        InputError: they are not the same for every input; the sentence names the layer.
    """
    norm: nn.Module = block.norm
    start = f"Expected batch norm with running statistics in eval mode in layer {path!r}, got"
    if not isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
        raise InputError(f"{start} {type(norm).__name__}, which cannot be fused.")
    if norm.running_mean is None or norm.running_var is None:
        raise InputError(f"{start} one without running statistics.")
    if norm.training:
        raise InputError(f"{start} one in training mode; call eval() first.")
    scale = 1 / (_wide(norm.running_var) + norm.eps).sqrt()
    if norm.weight is not None:
        scale = scale * _wide(norm.weight)
    shift = -scale * _wide(norm.running_mean)
    return scale, shift if norm.bias is None else shift + _wide(norm.bias)


def _fused(block: TrainingBlock, scale: Tensor, shift: Tensor) -> Block:
    fused = FusedBlock(block.dims, block.channels, block.stride)
    last, q = _wide(block.last.weight).flatten(1), block.spatial.out_channels
    out = _wide(block.last.bias)
    if block.pointwise is not None and fused.pointwise is not None:
        _set(fused.pointwise, *_through(last[:, q:], scale[q:], shift[q:], block.pointwise, out))
        out = torch.zeros_like(out)
    _set(fused.spatial, *_through(last[:, :q], scale[:q], shift[:q], block.spatial, out))
    return fused


def _through(last: Tensor, scale: Tensor, shift: Tensor, branch: Convolution, out: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a branch behind which norm and last convolution follow."""
    weight = torch.tensordot(last * scale, _wide(branch.weight), dims=1)
    return weight, last @ (scale * _wide(branch.bias) + shift) + out


def _folded(block: TrainingBlock, scale: Tensor, shift: Tensor) -> Block:
    folded = FoldedBlock(block.dims, block.channels, block.stride)
    _set(folded.spatial, _wide(block.spatial.weight), _wide(block.spatial.bias))
    if block.pointwise is not None and folded.pointwise is not None:
        _set(folded.pointwise, _wide(block.pointwise.weight), _wide(block.pointwise.bias))
    last = _wide(block.last.weight)
    weight = last * scale.reshape(1, -1, *(1,) * block.dims)
    _set(folded.last, weight, last.flatten(1) @ shift + _wide(block.last.bias))
    return folded


def _set(conv: Convolution, weight: Tensor, bias: Tensor) -> None:
    conv.weight, conv.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())  # they may be the original's


def _wide(value: Tensor | None) -> Tensor:
    assert value is not None  # the convolutions of a block have a bias
    return value.detach().to(torch.float64)
