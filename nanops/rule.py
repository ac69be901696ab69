"""When is a window of a convolution skipped, and what stands for the NaNs of one that is not?"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nanops.errors import InputError, expect_choice, expect_threshold

FILLS = ("mean", "max_normal")
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Rule:
    """The NaN convolution's options (sections 4 and 5 of the paper).

    Args:
        threshold: In (0, 1]. A window is skipped where NaNs / size >= threshold (the paper's t2), in float64.
        fill: `mean` of the window's valid values (approach A), or `max_normal`, draws around their maximum (B).
        sigma: Standard deviation of those draws.
        count_padding: Whether padding zeros are valid values and count in the window's size.
        uniform: Whether windows that equal the sample's background everywhere get the known output of one such window.

    Raises:
        InputError: a threshold, fill or sigma that makes no sense.
    """

    threshold: float = 0.5
    fill: str = "mean"
    sigma: float = 1e-3
    count_padding: bool = True
    uniform: bool = False

    def __post_init__(self) -> None:
        expect_threshold(self.threshold)
        expect_choice("fill", self.fill, FILLS)
        if not 0 <= self.sigma < float("inf"):
            raise InputError(f"Expected a sigma of 0 or more, got {self.sigma}.")

    def least(self, channels: int, taps: int) -> Tensor:
        """Return the NaNs from which on a window is skipped, int64 (taps + 1,), by how many taps lie in the image.

        Args:
            channels: Input channels of a group.
        """
        return _least(self.threshold, self.count_padding, channels, taps)


@lru_cache(maxsize=1024)
def _least(threshold: float, count_padding: bool, channels: int, taps: int) -> Tensor:
    sizes = [(taps if count_padding else inside) * channels for inside in range(taps + 1)]
    return torch.tensor([_first(threshold, size) for size in sizes])


def _first(threshold: float, size: int) -> int:
    if size == 0:
        return _NEVER
    n = max(int(threshold * size) - 2, 0)
    while n / size < threshold:
        n += 1
    return n
