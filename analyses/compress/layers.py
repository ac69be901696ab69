"""Which axes of a layer's tensors are channels, and which of its attributes count them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mcaprobe.errors import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
PRODUCERS = (*CONVOLUTIONS, *TRANSPOSED)
COUNTED: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(PRODUCERS, ("in_channels", "out_channels", "groups")),
    **dict.fromkeys(NORMS, ("num_features",)),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.PReLU: ("num_parameters",),
    nn.Linear: ("in_features", "out_features"),
}


@dataclass(frozen=True, slots=True)
class Axis:
    """Channels along one axis of a layer's tensors.

    Attributes:
        layer: Name of the layer.
        tensors: Names of its parameters and buffers, each with the axis.
        counts: Attributes that are the number of these channels.
        channels: Their numbers in `Channels`.
    """

    layer: str
    tensors: tuple[tuple[str, int], ...]
    counts: tuple[str, ...]
    channels: tuple[int, ...]


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of a layer's tensors that its counts of channels decide."""
    match layer:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            weight: tuple[int, ...] = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
            wanted = {"weight": weight, "bias": (layer.out_channels,)}
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            weight = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel_size)
            wanted = {"weight": weight, "bias": (layer.out_channels,)}
        case nn.GroupNorm():
            wanted = dict.fromkeys(("weight", "bias"), (layer.num_channels,))
        case nn.PReLU():
            wanted = {"weight": (layer.num_parameters,)}
        case nn.Linear():
            wanted = {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
        case _:
            features: Any = layer.num_features
            wanted = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (features,))
    return {name: shape for name, shape in wanted.items() if getattr(layer, name) is not None}


def convolution_axes(name: str, layer: Any, into: Sequence[int], out: Sequence[int]) -> tuple[Axis, Axis]:
    """Return the input's and the output's axis of a convolution, transposed or not, dense or depthwise.

    Raises:
        InputError: it has groups of more than one input channel.
    """
    transposed = isinstance(layer, TRANSPOSED)
    ins, outs = tuple(into), tuple(out)
    bias = (("bias", 0),) if layer.bias is not None else ()
    if layer.groups == 1:
        there, here = (0, 1) if transposed else (1, 0)
        return (
            Axis(name, (("weight", there),), ("in_channels",), ins),
            Axis(name, (("weight", here), *bias), ("out_channels",), outs),
        )
    if layer.groups != layer.in_channels:
        raise InputError(
            f"Expected convolutions with one group or one input channel a group, got '{name}' with "
            f"{layer.groups} groups of {layer.in_channels} channels."
        )
    # A filter of a depthwise layer has its one channel along an axis of length 1: only the other axis is cut.
    weight = (("weight", 0),)
    return (
        Axis(name, weight if transposed else (), ("in_channels", "groups"), ins),
        Axis(name, bias if transposed else (*weight, *bias), ("out_channels",), outs),
    )


def norm_axis(name: str, layer: nn.Module, channels: Sequence[int]) -> Axis:
    """Return the axis of a normalisation, or of a PReLU with a parameter a channel."""
    tensors = tuple((tensor, 0) for tensor in shapes(layer))
    count = "num_channels" if isinstance(layer, nn.GroupNorm) else COUNTED[type(layer)][0]
    return Axis(name, tensors, (count,), tuple(channels))
