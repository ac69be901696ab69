"""Approach B's draws: normal numbers that depend on the key, the window and the element, and on nothing else."""

import pytest
import scipy.stats
import torch

from nanops import functional as F
from tests.nanops.convolutions import ROUTES, normal_numbers, on, threads, with_nan
from tests.nanops.images import same_bits

NAN = float("nan")
routes = pytest.mark.parametrize("route", ROUTES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(places=200, seed=0, sigma=1e-3):
    """The draws of a pointwise convolution: its window is a 0 and a NaN, and only the NaN has a weight."""
    x = torch.zeros(1, 2, places, places)
    x[:, 1] = NAN
    w = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    return F.nan_conv2d(x, w, threshold=1.0, fill="max_normal", sigma=sigma, generator=seeded(seed)).flatten() / sigma


@routes
def test_draws_are_normal_and_not_related_to_their_neighbours(route):
    with on(route):
        z = drawn()
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert abs(z.mean()) < 4 / 200 and abs(z.var() - 1) < 4 * 2**0.5 / 200
    for lag in (1, 2, 16, 64, 200):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4 / (z.numel() - lag) ** 0.5
    assert z.unique().numel() > 0.99 * z.numel()


@routes
def test_sigma_scales_the_draws(route):
    with on(route):
        assert torch.allclose(drawn(20, sigma=2.0), drawn(20), rtol=1e-4) and (drawn(20, sigma=2.0) * 2).std() > 1.8


@routes
def test_the_same_seed_gives_the_same_bits_and_another_call_others(route):
    x, w = with_nan(normal_numbers(2, 3, 8, 8), "iid", rate=0.2), normal_numbers(4, 3, 3, 3)
    with on(route):
        g = seeded()
        first, second = (F.nan_conv2d(x, w, fill="max_normal", generator=g) for _ in range(2))
        again = F.nan_conv2d(x, w, fill="max_normal", generator=seeded())
        other = F.nan_conv2d(x, w, fill="max_normal", generator=seeded(1))
    assert same_bits(first, again)
    dirty = first.isfinite() & (first != F.nan_conv2d(x, w))
    assert dirty.any() and (first != second)[dirty].all() and (first != other)[dirty].all()


@routes
def test_threads_memory_format_and_place_in_the_batch_change_no_draw(route):
    x, w = with_nan(normal_numbers(1, 3, 9, 8), "iid", rate=0.2), normal_numbers(4, 3, 3, 3)
    batch = torch.cat([normal_numbers(1, 3, 9, 8, seed=5), x, x])

    def run(image):
        return F.nan_conv2d(image, w, padding=1, fill="max_normal", generator=seeded())

    with on(route):
        alone = run(x)
        last, many = run(x.contiguous(memory_format=torch.channels_last)), run(batch)
        with threads(1):
            one = run(x)
    bits = same_bits if route != "torch" else lambda a, b: torch.allclose(a, b, atol=1e-5, equal_nan=True)
    assert bits(alone, last.contiguous()) and same_bits(alone, one)
    assert bits(many[1:2], alone) and bits(many[2:], alone)


@routes
def test_every_element_of_a_window_has_its_own_draw(route):
    """In a window of 150 values, more than share one counter, weights pick one element after the other."""
    x = torch.zeros(1, 6, 5, 5)
    x[:, :, 0] = NAN
    w = torch.eye(150).view(150, 6, 5, 5)
    with on(route):
        y = F.nan_conv2d(x, w, fill="max_normal", sigma=1.0, generator=seeded()).view(6, 5, 5)
    assert (y[:, 1:] == 0).all() and y[:, 0].unique().numel() == 30 and abs(y[:, 0].std() - 1) < 0.5


@routes
def test_groups_draw_apart(route):
    x = torch.zeros(1, 4, 30)
    x[:, 1::2] = NAN
    with on(route):
        y = F.nan_conv1d(x, torch.ones(2, 2, 1), groups=2, threshold=1.0, fill="max_normal", sigma=1.0,
                         generator=seeded())  # fmt: skip
    assert y.unique().numel() == 60


@routes
def test_phases_of_a_transposed_convolution_draw_apart(route):
    x = torch.zeros(1, 2, 60, 60)
    x[:, 1] = NAN
    with on(route):
        y = F.nan_conv_transpose2d(x, torch.ones(2, 1, 2, 2), stride=2, threshold=1.0, fill="max_normal", sigma=1.0,
                                   generator=seeded())  # fmt: skip
    assert scipy.stats.kstest(y.flatten().numpy(), "norm").pvalue > 1e-3
    parts = torch.stack([y[..., i::2, j::2].flatten() for i in (0, 1) for j in (0, 1)])
    assert y.unique().numel() > 0.99 * y.numel()
    assert (torch.corrcoef(parts) - torch.eye(4)).abs().max() < 4 / 60


def test_instructions_give_the_same_draws():
    found = []
    for route in ROUTES:
        with on(route):
            found.append(drawn(40))
    assert all(torch.allclose(f, found[0], rtol=1e-4, atol=1e-5) for f in found)
