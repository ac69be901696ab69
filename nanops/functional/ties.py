"""Which positions of each window tie? One bitmap a window: bit t stands for tap t, the last axis running fastest."""

import torch
from torch import Tensor

from nanops.errors import InputError

MOST_TAPS = 64
_WORDS = ((8, torch.uint8), (16, torch.int16), (32, torch.int32), (MOST_TAPS, torch.int64))


def word(taps: int) -> torch.dtype:
    """Return the integer that holds the bitmap of a window; the last bit of a signed one is its sign.

    Raises:
        InputError: more than 64 taps.
    """
    for most, dtype in _WORDS:
        if taps <= most:
            return dtype
    raise InputError(f"Expected a kernel of at most {MOST_TAPS} taps, whose ties fit into one integer, got {taps}.")


def bit(tap: int, dtype: torch.dtype) -> int:
    """Return the word of which only this bit is set."""
    bits = torch.iinfo(dtype).bits
    return -(1 << tap) if tap == bits - 1 and dtype != torch.uint8 else 1 << tap


def has(ties: Tensor, tap: int) -> Tensor:
    """Return where this tap is among the ties, a boolean tensor of their shape."""
    return ties.bitwise_and(bit(tap, ties.dtype)) != 0


def count(ties: Tensor, taps: int) -> Tensor:
    """Return how many of the first `taps` positions of each window tie, int64."""
    total = torch.zeros_like(ties, dtype=torch.int64)
    for tap in range(taps):
        total += has(ties, tap)
    return total
