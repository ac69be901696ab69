"""Short ways to call the compiled kernels, and bounds for the statistics of what they give."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch

from mcaprobe import kernels
from mcaprobe.kernels.call import Call
from mcaprobe.kernels.products import Order, sum_products
from mcaprobe.noise.compiled import CompiledSite
from mcaprobe.rounding import Arithmetic

NEEDED = pytest.mark.skipif(kernels.library() is None, reason=f"no kernels: {kernels.absence()}")
MODES = ("random", "nearness")
INSTRUCTIONS = ("avx512", "avx2")


class Keyed:
    """A stream that only has a key."""

    device = torch.device("cpu")

    def __init__(self, *key: int) -> None:
        self.key = key


def site_of(mode: str, *key: int, threads: int = 1) -> CompiledSite:
    """Return a site of the route exact with the key of two words."""
    return CompiledSite(Arithmetic(mode), Keyed(*(key or (0, 0))), False, True, threads)


def matrix_order(products: int, segment: int | None = None, bias_first: bool = False) -> Order:
    """Return the order of a matrix product: one tap, the channels one after the other."""
    channel = torch.arange(products, dtype=torch.int32)
    return Order(channel, torch.zeros_like(channel), torch.zeros(1, 3, dtype=torch.int32), segment, bias_first)


def multiply(call: Call, a, b, segment: int | None = None, bias=None, bias_first: bool = False) -> torch.Tensor:
    """Return a @ b + bias of (rows, products) and (products, columns): rows and columns are those of the kernel."""
    out = torch.empty(1, a.shape[0], 1, 1, b.shape[1])
    order = matrix_order(a.shape[1], segment, bias_first)
    sum_products(call, b[None, :, None, None], a[None], bias, order, (1, 1, 1), out)
    return out[0, :, 0, 0]


def on(instructions: str, monkeypatch) -> None:
    """Let the kernels of one instruction set run, or skip."""
    found = kernels.load(instructions) if instructions in kernels.names() else None
    if found is None:
        pytest.skip(f"no {instructions} kernels on this machine")
    monkeypatch.setattr(kernels, "library", lambda: found)


def same_bits(a, b) -> bool:
    """Return whether two float32 tensors have the same bits; any NaN is a NaN."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    nan = a.isnan()
    bits = [t.contiguous().view(torch.int32)[~nan] for t in (a, b)]
    return a.shape == b.shape and torch.equal(nan, b.isnan()) and torch.equal(*bits)


def expect_same_moments(y: np.ndarray, truth: np.ndarray, bound: float = 5.5) -> None:
    """Compare means and variances of independent samples (samples, elements) of two sources.

    Each z value stays below 5.5 (two-sided probability 4e-8, for some 10^4 elements in all), and so does the root mean
    square of all of them, which finds a small common shift: it may be 1 + 5.5 / sqrt 2 n of n elements if these were
    independent; neighbours share inputs, but not roundings.
    """
    y, truth = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (y, truth))
    assert y.shape[1] == truth.shape[1]
    n, m = len(y), len(truth)
    vy, vt = y.var(0, ddof=1), truth.var(0, ddof=1)
    moved = (vy > 0) | (vt > 0)
    centre = truth[0]
    assert np.array_equal(y[0, ~moved], centre[~moved]), "elements that do not move differ"
    assert ((vy > 0) == (vt > 0)).all(), "other elements move"
    if not moved.any():
        return
    y, truth, vy, vt = y[:, moved], truth[:, moved], vy[moved], vt[moved]
    z_mean = (y.mean(0) - truth.mean(0)) / np.sqrt(vy / n + vt / m)
    pooled = (n * vy + m * vt) / (n + m)
    fourth = np.concatenate([(y - y.mean(0)) ** 4, (truth - truth.mean(0)) ** 4]).mean(0)
    # (A variable of two values with probability 1/2 has no spread of its variance: a floor of one part in a thousand.)
    spread = np.sqrt(np.maximum(fourth - pooled**2, 1e-6 * n * pooled**2) * (1 / n + 1 / m))
    z_variance = (vy - vt) / spread
    for z in (z_mean, z_variance):
        assert np.abs(z).max() < bound, np.abs(z).max()
        rms = sqrt(np.mean(z**2))
        assert rms < 1 + bound / sqrt(2 * len(z)), rms


def expect_share(count: int, chance: float, total: int, bound: float = 5.5) -> None:
    """Compare a count with a binomial distribution."""
    assert abs(count - chance * total) <= bound * sqrt(max(chance * (1 - chance), 0) * total) + 1e-9, (count, total)


def expect_uncorrelated(noise: np.ndarray, bound: float = 5.5) -> None:
    """Expect about no correlation between any two columns of (samples, elements), all of which move."""
    c = np.corrcoef(np.asarray(noise, np.float64), rowvar=False)
    assert np.isfinite(c).all()
    c = c[np.triu_indices(len(c), 1)] * sqrt(len(noise))
    assert np.abs(c).max() < bound, np.abs(c).max()
    assert sqrt(np.mean(c**2)) < 1 + bound / sqrt(2 * len(c)), sqrt(np.mean(c**2))


def increasing(values) -> bool:
    """Return whether no value is below the one before it."""
    return all(a <= b for a, b in pairwise(values))
