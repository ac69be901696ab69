"""How does a masked convolution compute its active kernels only? The inputs of each output are gathered.

A weight of 0 spares no work in a dense convolution, and does not stop a NaN: 0 times NaN is NaN, and a NaN convolution
counts the NaNs of all its inputs. Here an output reads the inputs of its active kernels and no others. What calls
torch's convolution so also follows `nanops.convert`: the share of NaN in a window is that of the inputs it reads.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mcaprobe.errors import InputError
from nanops.errors import nearest

_FUNCTIONS: dict[type[nn.Module], Any] = {
    nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d, nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d, nn.ConvTranspose3d: F.conv_transpose3d,
}  # fmt: skip


class GatheredConv(nn.Module):
    """A convolution, or a transposed one, of the active kernels of a dense one; it holds no others.

    Outputs that read the same inputs are computed together. An output without an active kernel is its bias, or 0.

    Args:
        name: Of the dense layer, for messages.
        conv: That layer, with one group and padding of zeros.
        mask: Its active kernels, (out, in), or (in, out) of a transposed one.

    Raises:
        InputError: another layer, a mask of another shape, or one without an active kernel.
    """

    def __init__(self, name: str, conv: nn.Module, mask: Tensor) -> None:
        super().__init__()
        if type(conv) not in _FUNCTIONS or not isinstance(conv, _ConvNd):
            raise InputError(f"Expected a convolution of torch to gather, got layer {name!r}, {type(conv).__name__}.")
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise InputError(f"Expected one group and padding of zeros, got layer {name!r} with {conv.groups} groups "
                             f"and padding {conv.padding_mode!r}.")  # fmt: skip
        if mask.shape != conv.weight.shape[:2] or not bool(mask.any()):
            raise InputError(f"Expected a mask of shape {tuple(conv.weight.shape[:2])} with an active kernel, got "
                             f"{tuple(mask.shape)} with {int(mask.sum())} for layer {name!r}.")  # fmt: skip
        self.function, self.axis = _FUNCTIONS[type(conv)], 1 if conv.transposed else 0
        self.options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        if conv.transposed:
            self.options["output_padding"] = conv.output_padding
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.weights, self.sources, self.targets = nn.ParameterList(), [], []
        for row, outputs in _alike(mask.t() if conv.transposed else mask):
            self.sources.append(row.nonzero().flatten())
            self.targets.append(outputs)
            part = conv.weight.detach().index_select(self.axis, outputs).index_select(1 - self.axis, self.sources[-1])
            self.weights.append(nn.Parameter(part.clone()))
        self.order = torch.cat(self.targets).argsort()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the masked dense layer would, up to the order of its sums: (N, C, *size) -> (N, O, *size)."""
        parts: list[Tensor | None] = []
        for weight, source, target in zip(self.weights, self.sources, self.targets, strict=True):
            if len(source) == 0:
                parts.append(None)
                continue
            bias = None if self.bias is None else self.bias[target]
            parts.append(self.function(x.index_select(1, source), weight, bias, **self.options))
        like = next(part for part in parts if part is not None)
        whole = [
            self._constant(like, target) if part is None else part
            for part, target in zip(parts, self.targets, strict=True)
        ]
        return torch.cat(whole, dim=1).index_select(1, self.order)

    def _constant(self, like: Tensor, target: Tensor) -> Tensor:
        empty = like.new_zeros((like.shape[0], len(target), *like.shape[2:]))
        return empty if self.bias is None else empty + self.bias[target].view(-1, *[1] * (like.dim() - 2))


def gathered(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model on the CPU whose masked convolutions hold and compute their active kernels only.

    Args:
        masks: By name of the weight (`Masks.masks`).

    Raises:
        InputError: a mask of no weight of the model, or of a layer that cannot be gathered.
    """
    named = dict(model.named_parameters())
    sparse = copy.deepcopy(model).cpu()
    for name, mask in masks.items():
        if name not in named:
            raise InputError(f"Expected masks of the model's weights, got {name!r}{nearest(name, named)}")
        path, _, attribute = name.rpartition(".")
        layer = sparse.get_submodule(path)
        if attribute != "weight" or not path:
            raise InputError(f"Expected the mask of a layer's weight, got {name!r}.")
        parent, _, child = path.rpartition(".")
        setattr(sparse.get_submodule(parent), child, GatheredConv(path, layer, mask.cpu()))
    return sparse


def _alike(mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the different rows of a mask (outputs, inputs), each with the outputs that have it."""
    rows, which = mask.unique(dim=0, return_inverse=True)
    return [(row, (which == i).nonzero().flatten()) for i, row in enumerate(rows)]
