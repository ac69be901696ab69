"""How does a 1 x 3 x 3 convolution see its neighbours in depth? Its input channels are shifted along it beforehand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mcaprobe.errors import InputError

SHIFTS = (-1, 0, 1)


def depth_shift(x: Tensor) -> Tensor:
    """Return x with the first third of the channels shifted by -1 along depth, the second by 0, the last by +1.

    Shift s moves slice d - s to d; what comes from outside is 0 (E2ENet, section 2.3). The thirds are those of
    `torch.chunk`: ceil(C / 3) channels each, so that the last one has fewer, and of 4 channels or fewer than 3 there
    may be none: a single channel is shifted by -1.

    Args:
        x: (N, C, D, H, W).
    """
    if x.ndim != 5:
        raise InputError(f"Expected x of shape (N, C, D, H, W), got {tuple(x.shape)}.")
    parts = torch.chunk(x, len(SHIFTS), dim=1)
    # Negative padding cuts off what leaves the volume at the other end.
    return torch.cat([F.pad(part, (0, 0, 0, 0, s, -s)) for part, s in zip(parts, SHIFTS, strict=False)], dim=1)
