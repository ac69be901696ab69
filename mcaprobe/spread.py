"""How wide do the samples of one run scatter, over those of another?"""

from __future__ import annotations

import math

from torch import Tensor

from mcaprobe.estimators import Class
from mcaprobe.moments import Moments
from mcaprobe.significance import fixed_classes


def varies(m: Moments) -> Tensor:
    """Return the elements that are finite in every run and not the same in all samples, bool, the layer's shape."""
    return fixed_classes(m) == Class.NUMBER


def std_ratio(m2_a: Tensor, n_a: int, m2_b: Tensor, n_b: int) -> float | None:
    """Return the root mean square of the standard deviations of A over that of B.

    sqrt(sum var_A / sum var_B) with var = M2 / (n - 1), whose expectation does not depend on n.

    Args:
        m2_a, m2_b: Sums of squared distances from the mean, float64, of the same elements: those that vary in both.
        n_a, n_b: Samples, at least 2.
    Returns:
        A positive number; None without elements, and where a sum of squares leaves the range of float64.
    """
    a, b = float(m2_a.sum()) / (n_a - 1), float(m2_b.sum()) / (n_b - 1)
    if not (0 < a < math.inf and 0 < b < math.inf):
        return None
    return math.sqrt(a) / math.sqrt(b)


def std_scatter(n: int) -> float:
    """Return the relative standard error of one standard deviation of n normal samples, 1 / sqrt(2 (n - 1))."""
    return 1 / math.sqrt(2 * (n - 1))
