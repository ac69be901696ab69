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


class Part(nn.Module):
    """Kernels between some inputs of a layer and some of its outputs, all active: weight, `sources`, `targets`."""

    sources: Tensor
    targets: Tensor

    def __init__(self, weight: Tensor, sources: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("sources", sources)
        self.register_buffer("targets", targets)


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

    order: Tensor

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
        self.parts = nn.ModuleList()
        weight, mask = conv.weight.detach(), mask.to(conv.weight.device)
        for row, targets in _alike(mask.t() if conv.transposed else mask):
            sources = row.nonzero().flatten()
            kernels = weight.index_select(self.axis, targets).index_select(1 - self.axis, sources)
            self.parts.append(Part(kernels, sources, targets))
        self.register_buffer("order", torch.cat([part.targets for part in self._parts()]).argsort())

    def forward(self, x: Tensor) -> Tensor:
        """Return what the masked dense layer would, up to the order of its sums: (N, C, *size) -> (N, O, *size)."""
        made = [self._outputs(x, part) if len(part.sources) else None for part in self._parts()]
        like = next(y for y in made if y is not None)
        whole = [
            self._constant(like, part) if y is None else y for y, part in zip(made, self._parts(), strict=True)
        ]
        return torch.cat(whole, dim=1).index_select(1, self.order)

    def _parts(self) -> list[Part]:
        return list(self.parts)  # type: ignore[arg-type]

    def _outputs(self, x: Tensor, part: Part) -> Tensor:
        bias = None if self.bias is None else self.bias.index_select(0, part.targets)
        y: Tensor = self.function(x.index_select(1, part.sources), part.weight, bias, **self.options)
        return y

    def _constant(self, like: Tensor, part: Part) -> Tensor:
        empty = torch.zeros((like.shape[0], len(part.targets), *like.shape[2:]), dtype=like.dtype, device=like.device)
        if self.bias is None:
            return empty
        return empty + self.bias.index_select(0, part.targets).view(-1, *[1] * (like.dim() - 2))


def gathered(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model whose masked convolutions hold and compute their active kernels only.

    Args:
        masks: By name of the weight (`Masks.masks`).

    Raises:
        InputError: a mask of no weight of the model, or of a layer that cannot be gathered.
    """
    named = dict(model.named_parameters())
    sparse = copy.deepcopy(model)
    for name, mask in masks.items():
        if name not in named:
            raise InputError(f"Expected masks of the model's weights, got {name!r}{nearest(name, named)}")
        path, _, attribute = name.rpartition(".")
        layer = sparse.get_submodule(path)
        if attribute != "weight" or not path:
            raise InputError(f"Expected the mask of a layer's weight, got {name!r}.")
        parent, _, child = path.rpartition(".")
        setattr(sparse.get_submodule(parent), child, GatheredConv(path, layer, mask))
    return sparse


def _alike(mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the different rows of a mask (outputs, inputs), each with the outputs that have it."""
    rows, which = mask.unique(dim=0, return_inverse=True)
    return [(row, (which == i).nonzero().flatten()) for i, row in enumerate(rows)]
