"""How sure is a mean over few subjects, is one method no worse than another, and how many units were never seen?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mcaprobe.errors import InputError

DRAWS = 10_000


def bootstrap_interval(values: Sequence[float], seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over subjects."""
    x = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    low, high = np.quantile(x[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """One comparison of paired scores.

    Attributes:
        n: Pairs.
        difference: Mean of method minus reference.
        low, high: Its 95 % percentile bootstrap interval.
        p: Of the one-sided paired t-test of "the mean difference is -margin or less".
    """

    n: int
    difference: float
    low: float
    high: float
    p: float


def non_inferiority(
    method: Sequence[float], reference: Sequence[float], margin: float, seed: int = 0
) -> NonInferiority:
    """Return how a method's scores compare with the reference's on the same subjects.

    Where all differences are the same the t-test has no variance: p is 0 where they are above -margin, else 1.

    Raises:
        InputError: fewer than two pairs, or other numbers of scores, or NaN among them.
    """
    if len(method) != len(reference) or len(method) < 2:
        raise InputError(f"Expected two or more pairs of scores, got {len(method)} and {len(reference)}.")
    d = np.asarray(method, np.float64) - np.asarray(reference, np.float64)
    if np.isnan(d).any():
        raise InputError(f"Expected scores that are numbers, got {int(np.isnan(d).sum())} pairs with NaN.")
    low, high = bootstrap_interval(d.tolist(), seed)
    if np.ptp(d) == 0:
        p = 0.0 if d[0] > -margin else 1.0
    else:
        p = float(stats.ttest_1samp(d, -margin, alternative="greater").pvalue)
    return NonInferiority(len(d), float(d.mean()), low, high, p)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return [float(value) for value in corrected]


def never_seen(once: int, twice: int, samples: int) -> float:
    """Return how many units at least were not seen in any sample, though they can be (Chao 1987, incidence data).

    Args:
        once, twice: Units that were seen in exactly one, exactly two of the samples.
    """
    share = (samples - 1) / samples
    if twice:
        return share * once**2 / (2 * twice)
    return share * once * (once - 1) / 2
