"""Is this network one of torch's own modules? A converted one has other classes, which no block may be exchanged in."""

from torch import nn

import nanops
from mcaprobe.errors import InputError


def expect_unconverted(network: nn.Module) -> None:
    """Raise InputError for a network that nanops.convert returned."""
    try:
        nanops.restore(network)
    except nanops.InputError:
        return
    raise InputError(f"Expected a {type(network).__name__} before nanops.convert, got a converted one; "
                     "nanops.restore gives the original.")  # fmt: skip
