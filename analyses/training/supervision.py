"""How do several outputs of a network, each half the size of the one before, learn from one target?"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from mcaprobe.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def deep_supervision(loss: Loss, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the mean of the outputs' losses, each weighing half of the finer one's: 4/7, 2/7, 1/7 of three outputs.

    Args:
        loss: Of logits and classes.
        outputs: Logits (N, classes, *size), the finest first, as Algorithm 1 of E2ENet and nnU-Net weigh them.
        target: Classes (N, *size), int64; coarser outputs see the nearest ones.
    """
    if not outputs:
        raise InputError("Expected an output or more, got none.")
    total = outputs[0].new_zeros(())
    for k, logits in enumerate(outputs):
        small = F.interpolate(target[:, None].to(logits.dtype), size=logits.shape[2:], mode="nearest-exact")
        total = total + 0.5**k * loss(logits, small[:, 0].to(target.dtype))
    return total / (2 - 0.5 ** (len(outputs) - 1))
