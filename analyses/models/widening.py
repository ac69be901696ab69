"""How does a trained network get more filters and stay the same function?

Net2WiderNet (Chen, Goodfellow and Shlens, Net2Net, ICLR 2016): units are copied, and whatever reads a unit divides its
weight by the number of copies. The work of a wide network can so be timed on the activations of a trained one.
"""

import torch
from torch import Tensor

from analyses.models.fastsurfer import FastSurferVINN
from mcaprobe.errors import InputError

JOINED = "outp_block.conv0.weight"  # reads the decoder's filters, then those of the input block


def width_of(network: FastSurferVINN) -> int:
    """Return the number of filters behind the inner resolution."""
    return len(network.state_dict()["encode1.conv1.weight"])


def widened(network: FastSurferVINN, filters: int) -> FastSurferVINN:
    """Return a network in eval mode with the same logits, up to rounding, and as many filters; its input block's stay.

    Args:
        filters: Not fewer than the network has; unit i copies unit i modulo the network's width.
    """
    width = width_of(network)
    if filters < width:
        raise InputError(f"Expected at least the {width} filters of the trained network, got {filters}.")
    weights = network.state_dict()
    inner, classes = (len(weights[name]) for name in ("inp_block.conv0.weight", "classifier.conv.weight"))
    wide = FastSurferVINN(network.slices, filters, inner, classes, network.inner_size)
    shapes = {name: tuple(value.shape) for name, value in wide.state_dict().items()}
    units = torch.arange(filters) % width
    wide.load_state_dict({
        name: _wider(value, shapes[name], units, width if name == JOINED else None) for name, value in weights.items()
    })  # fmt: skip
    return wide.eval()


def _wider(value: Tensor, shape: tuple[int, ...], units: Tensor, joined: int | None) -> Tensor:
    """Return a parameter in a new shape; of a joined input, only the first `joined` channels are copied."""
    if value.dim() == 0:
        return value
    if value.shape[0] != shape[0]:
        value = value[units]
    if value.dim() < 2 or value.shape[1] == shape[1]:
        return value
    copies = torch.bincount(units).to(value)[units].view(1, -1, *[1] * (value.dim() - 2))
    return torch.cat([value[:, :joined][:, units] / copies, value[:, joined:] if joined else value[:, :0]], 1)
