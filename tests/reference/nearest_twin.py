"""What does rounding to nearest after every multiply-add or addition give? Bit for bit, in the other twin's orders.

Values are float32 numbers held in float64. A result is known there as a sum of two numbers; rounded to odd first, it
can be rounded to float32 without being rounded twice (Boldo & Melquiond 2008).
"""

import numpy as np

from tests.reference.random_rounding_twin import Rounding


class Nearest(Rounding):
    """IEEE arithmetic of float32 in the place of random rounding."""

    def __init__(self) -> None:
        super().__init__("nearest")

    def round(self, high, low=0.0):
        """Return high + low rounded to the nearest float32, ties to even (as float64)."""
        high, low = np.broadcast_arrays(np.asarray(high, np.float64), np.asarray(low, np.float64))
        even = (high.view(np.int64) if high.flags.c_contiguous else high.copy().view(np.int64)) % 2 == 0
        odd = np.where((low != 0) & even, np.nextafter(high, np.where(low > 0, np.inf, -np.inf)), high)
        return odd.astype(np.float32).astype(np.float64)
