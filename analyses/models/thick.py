"""How does a stack of slices become one of labels?

Slice by slice with its neighbours (2.5-D): these are the channels of a network for images, or the volume that one for
volumes gets, of whose output the middle is taken.
"""

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError


class _EachSlice(nn.Module):
    """A network that is applied to each slice of a stack that has its neighbours.

    Args:
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
        """Return the slices (N D, 2 context + 1, H, W) with their neighbours of x (N, 1, D + 2 context, H, W).

        Raises:
            InputError: x has another shape.
        """
        seen = 2 * self.context + 1
        if x.ndim != 5 or x.shape[1] != 1 or x.shape[2] < seen:
            raise InputError(f"Expected x of shape (N, 1, {seen} or more, H, W), got {tuple(x.shape)}.")
        around = torch.arange(x.shape[2] - seen + 1)[:, None] + torch.arange(seen)
        found: Tensor = x[:, 0][:, around].flatten(0, 1)
        return found


class ThickSlices(_EachSlice):
    """Apply a 2-D network to each slice of a stack that has its neighbours, which are further channels.

    Args:
        network: Of 2 context + 1 channels.
        context: Neighbours on either side.

    Raises:
        InputError: a negative context.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, D, H, W) of x (N, 1, D + 2 context, H, W).

        Raises:
            InputError: as `slices`.
        """
        return _stacked(self.network(self.slices(x)), len(x))


class MiddleSlices(_EachSlice):
    """Apply a 3-D network to each slice of a stack with its neighbours, and take the slice in the middle of its output.

    The stack as one volume would be cheaper, but a network that learnt volumes of 2 context + 1 slices fails on it.

    Args:
        network: Returns logits (N, classes, 2 context + 1, H, W), in training mode a list of them, all as deep.
        context: Neighbours on either side.

    Raises:
        InputError: a negative context.
    """

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return the logits (N, classes, D, H, W) of x (N, 1, D + 2 context, H, W), or the list of them.

        Raises:
            InputError: as `slices`.
        """
        found = self.network(self.slices(x)[:, None])
        if isinstance(found, Tensor):
            return _stacked(found[:, :, self.context], len(x))
        return [_stacked(logits[:, :, self.context], len(x)) for logits in found]


def _stacked(logits: Tensor, count: int) -> Tensor:
    """Return (N, classes, D, H, W) of the logits (N D, classes, H, W) of the slices of N stacks."""
    return logits.unflatten(0, (count, -1)).movedim(2, 1)
