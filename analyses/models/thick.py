"""How does a stack of slices become one of labels?

By a network for images, slice by slice with neighbours (2.5-D), or by one for volumes, of whose output the slices that
have neighbours are taken.
"""

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError


class ThickSlices(nn.Module):
    """Apply a 2-D network to each slice of a stack that has its neighbours, which are further channels.

    Args:
        network: Of 2 context + 1 channels.
        context: Neighbours on either side.

    Raises:
        InputError: a negative context.
    """

    def __init__(self, network: nn.Module, context: int = 1) -> None:
        super().__init__()
        self.network = network
        self.context = checked(context)

    def slices(self, x: Tensor) -> Tensor:
        """Return the slices (N D, 2 context + 1, H, W) that the network sees of x (N, 1, D + 2 context, H, W).

        Raises:
            InputError: x has another shape.
        """
        depth = depth_within(x, self.context)
        around = torch.arange(depth)[:, None] + torch.arange(2 * self.context + 1)
        found: Tensor = x[:, 0][:, around].flatten(0, 1)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, D, H, W) of x (N, 1, D + 2 context, H, W).

        Raises:
            InputError: as `slices`.
        """
        logits: Tensor = self.network(self.slices(x))
        return logits.unflatten(0, (len(x), -1)).movedim(2, 1)


class MiddleSlices(nn.Module):
    """Apply a 3-D network to a stack and take the slices of its output that have neighbours.

    Args:
        network: Returns logits (N, classes, D + 2 context, H, W), in training mode a list of them, all as deep.
        context: Slices on either side that serve as neighbours only.

    Raises:
        InputError: a negative context.
    """

    def __init__(self, network: nn.Module, context: int = 1) -> None:
        super().__init__()
        self.network = network
        self.context = checked(context)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the logits (N, classes, D, H, W) of x (N, 1, D + 2 context, H, W), or the list of them.

        Raises:
            InputError: x has another shape.
        """
        depth = depth_within(x, self.context)
        found = self.network(x)
        if isinstance(found, Tensor):
            return found.narrow(2, self.context, depth)
        return [logits.narrow(2, self.context, depth) for logits in found]


def checked(context: int) -> int:
    """Return a context; InputError where it is negative."""
    if context < 0:
        raise InputError(f"Expected a context of 0 or more slices, got {context}.")
    return context


def depth_within(x: Tensor, context: int) -> int:
    """Return the number D of slices of x (N, 1, D + 2 context, H, W) that have their neighbours; InputError of none."""
    if x.ndim != 5 or x.shape[1] != 1 or x.shape[2] <= 2 * context:
        raise InputError(f"Expected x of shape (N, 1, {2 * context + 1} or more, H, W), got {tuple(x.shape)}.")
    return x.shape[2] - 2 * context
