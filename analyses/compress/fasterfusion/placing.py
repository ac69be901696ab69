"""Where do FasterFusion blocks go in a network that exists?

A block replaces a unit (units.py) whose convolution has width 3, padding 1 and enough output channels: also its
activation, which becomes the block's leaky ReLU, and its stride, which becomes a max-pool. Transposed convolutions,
those of width 1 (heads among them) and narrower units stay.
"""

from typing import TypeVar

from torch import Generator, nn

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from analyses.compress.fasterfusion.units import Unit, convolutions_of, replaced, units_of
from analyses.models.fasterfusion import RATIO, WIDTH, Block, Channels, TrainingBlock
from analyses.models.fasterfusion_nans import Convolution
from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
AT_LEAST = 160  # output channels; below it the paper found little to gain


def place(
    network: Network, at_least: int = AT_LEAST, ratio: int = RATIO, *, generator: Generator | None = None
) -> Network:
    """Return a copy of a network with blocks in training form in the place of wide units; the network stays as it is.

    Args:
        network: Any in two or three dimensions.
        at_least: Output channels from which on a unit is replaced.
        ratio: g; a block's spatial convolution sees floor(channels / g) of them.
        generator: Of the initial weights of the blocks (He, for a leaky ReLU); by default torch's own.

    Raises:
        InputError: nothing to replace; or a convolution as wide is part of no unit or is of another kind, or the ratio
            leaves it no spatial channel: the sentence names the layer; a converted network.
    """
    expect_unconverted(network)
    units = units_of(network)
    wide = {p: c for p, c in convolutions_of(network).items() if c.out_channels >= at_least and max(c.kernel_size) > 1}
    owner = {unit.conv: unit for unit in units}
    blocks: dict[Unit, Block] = {}
    for path, conv in wide.items():
        if conv not in owner:
            raise InputError(f"Expected layer {path!r} in a module of a convolution, a norm and an activation, or "
                             "before the two in an nn.Sequential; it is not recognisable as such.")  # fmt: skip
        _expect_kind(path, conv)
        blocks[owner[conv]] = _block(owner[conv], ratio, generator)
    if not blocks:
        most = max((u.conv.out_channels for u in units), default=0)
        raise InputError(f"Expected a unit with {at_least} output channels or more, the widest has {most}.")
    return replaced(network, blocks)


def _expect_kind(path: str, conv: Convolution) -> None:
    dims = len(conv.kernel_size)
    kind = {
        "kernel": (conv.kernel_size, (WIDTH,) * dims), "padding": (conv.padding, (WIDTH // 2,) * dims),
        "dilation": (conv.dilation, (1,) * dims), "groups": (conv.groups, 1),
        "padding mode": (conv.padding_mode, "zeros"),
    }  # fmt: skip
    for name, (got, expected) in kind.items():
        if got != expected:
            raise InputError(f"Expected {name} {expected} in layer {path!r}, got {got}.")


def _block(unit: Unit, ratio: int, generator: Generator | None) -> Block:
    conv = unit.conv
    try:
        channels = Channels.split(conv.in_channels, conv.out_channels, ratio)
    except InputError as error:
        raise InputError(f"In layer {unit.conv_path!r}: {error}") from None
    block = TrainingBlock(len(conv.kernel_size), channels, conv.stride)
    block.reset_parameters(generator)
    return block.to(conv.weight).train(unit.module.training)
