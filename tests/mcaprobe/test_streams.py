"""Random streams: what one draw depends on, and its distribution."""

from math import sqrt

import numpy as np
import pytest
import torch

from mcaprobe.streams import Stream

N = 100_000
PLACES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (2**40, 0, 0), (0, 2**20, 2**20)]


def draws(kind: str, place: tuple[int, int, int], count: int = N) -> torch.Tensor:
    return getattr(Stream(*place), kind)(count)


@pytest.mark.parametrize("kind", ["normal", "uniform", "coin"])
def test_the_same_place_gives_the_same_draws(kind):
    for place in PLACES:
        assert torch.equal(draws(kind, place, 1000), draws(kind, place, 1000))


@pytest.mark.parametrize("kind", ["normal", "uniform", "coin"])
def test_other_places_give_uncorrelated_draws(kind):
    table = torch.stack([draws(kind, place).double() for place in PLACES])
    correlations = torch.corrcoef(table) - torch.eye(len(PLACES), dtype=torch.float64)
    assert correlations.abs().max() < 5 / sqrt(N)


def test_the_global_generators_are_not_touched():
    torch.manual_seed(4)
    np.random.seed(4)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    for kind in ("normal", "uniform", "coin"):
        draws(kind, (0, 0, 0), 100)
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == legacy).all()


def test_distributions():
    normal, uniform, coin = (draws(kind, (5, 6, 7)).double() for kind in ("normal", "uniform", "coin"))
    assert abs(normal.mean()) < 5 / sqrt(N) and abs(normal.var() - 1) < 5 * sqrt(2 / N)
    assert abs((normal**4).mean() - 3) < 5 * sqrt(96 / N)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 5 / sqrt(12 * N)
    counts = torch.histc(uniform, 64, 0, 1)
    assert ((counts - N / 64) ** 2 / (N / 64)).sum() < 63 + 5 * sqrt(2 * 63)
    assert abs(coin.mean() - 0.5) < 2.5 / sqrt(N)


def test_neighbouring_draws_of_a_coin_are_uncorrelated():
    coin = draws("coin", (0, 3, 9)).double() - 0.5
    for lag in (1, 2, 7, 8, 16):
        assert abs((coin[:-lag] * coin[lag:]).mean()) * 4 < 5 / sqrt(N)


@pytest.mark.parametrize("kind", ["normal", "uniform", "coin"])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_any_number_of_draws(kind, count):
    assert draws(kind, (0, 0, 0), count).shape == (count,)


def test_types():
    assert [draws(k, (0, 0, 0), 3).dtype for k in ("normal", "uniform", "coin")] == [
        torch.float32,
        torch.float32,
        torch.bool,
    ]
