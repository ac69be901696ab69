"""How sure is a mean over few subjects? Student's interval."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from mcaprobe.errors import InputError


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean; of values that are all the same it is this value.

    Raises:
        InputError: fewer than two values.
    """
    if len(values) < 2:
        raise InputError(f"Expected two or more values for an interval, got {len(values)}.")
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return float(low), float(high)
