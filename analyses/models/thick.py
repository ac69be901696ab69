"""How does a stack of slices become one of labels?

Slice by slice with its neighbours (2.5-D): these are the channels of a network for images, or the volume that one for
volumes gets, of whose output the middle is taken.
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
    """Apply a 3-D network to each slice of a stack with its neighbours, and take the slice in the middle of its output.

    The stack as one volume would be cheaper, but a network that learnt volumes of 2 context + 1 slices fails on it.

    Args:
        network: Returns logits (N, classes, 2 context + 1, H, W), in training mode a list of them, all as deep.
        context: Neighbours on either side.

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
        depth_within(x, self.context)
        volumes = x.unfold(2, 2 * self.context + 1, 1).movedim(-1, 3).movedim(1, 2).flatten(0, 1)
        found = self.network(volumes)
        if isinstance(found, Tensor):
            return self._middle(found, len(x))
        return [self._middle(logits, len(x)) for logits in found]

    def _middle(self, logits: Tensor, count: int) -> Tensor:
        found: Tensor = logits[:, :, self.context].unflatten(0, (count, -1)).movedim(2, 1)
        return found


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
