"""How do the blocks of a network count NaN over both of their branches?"""

from copy import deepcopy
from typing import TypeVar

from torch import nn

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from analyses.models.fasterfusion import Block
from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def pool_nans(network: Network, threshold: float | None) -> Network:
    """Return a copy of a network whose blocks count NaN over both branches together (models/fasterfusion_nans.py).

    Args:
        network: With blocks, in any form; convert it with nanops afterwards for all else that meets a NaN.
        threshold: In (0, 1], or None for each convolution by itself.

    Raises:
        InputError: a threshold outside, a network without blocks, or a converted one.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"Expected a threshold in (0, 1] or None, got {threshold}.")
    expect_unconverted(network)
    copy = deepcopy(network)
    blocks = [m for m in copy.modules() if isinstance(m, Block)]
    if not blocks:
        raise InputError(f"Expected a network with FasterFusion blocks, got a {type(network).__name__} without one.")
    for block in blocks:
        block.nan_threshold = threshold
    return copy
