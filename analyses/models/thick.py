"""How does a network for images segment a stack of slices? One by one, each with its neighbours as channels: 2.5-D."""

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError


class ThickSlices(nn.Module):
    """Apply a 2-D network to each slice of a stack; at the ends the last slice stands for those that are not there.

    Args:
        network: Of 2 context + 1 channels.
        context: Neighbours on either side.

    Raises:
        InputError: a negative context.
    """

    def __init__(self, network: nn.Module, context: int = 1) -> None:
        super().__init__()
        if context < 0:
            raise InputError(f"Expected a context of 0 or more slices, got {context}.")
        self.network = network
        self.context = context

    def slices(self, x: Tensor) -> Tensor:
        """Return the slices (N D, 2 context + 1, H, W) that the network sees of x (N, 1, D, H, W).

        Raises:
            InputError: x has another shape.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise InputError(f"Expected x of shape (N, 1, D, H, W), got {tuple(x.shape)}.")
        depth = x.shape[2]
        around = torch.arange(depth)[:, None] + torch.arange(-self.context, self.context + 1)
        found: Tensor = x[:, 0][:, around.clamp(0, depth - 1)].flatten(0, 1)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, D, H, W) of x (N, 1, D, H, W).

        Raises:
            InputError: as `slices`.
        """
        logits: Tensor = self.network(self.slices(x))
        return logits.unflatten(0, (len(x), x.shape[2])).movedim(2, 1)
