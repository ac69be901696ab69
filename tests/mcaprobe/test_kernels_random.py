"""The kernels' random bits: Philox by its published vectors, and each kernel's use of it, bit by bit."""

from math import sqrt

import numpy as np
import pytest
import torch
from scipy import stats

from mcaprobe.kernels.call import Call
from mcaprobe.kernels.elementwise import elementwise
from mcaprobe.kernels.reductions import reduce
from tests.mcaprobe.kernel_calls import INSTRUCTIONS, expect_share, expect_uncorrelated, multiply, on
from tests.reference.philox_twin import LOW, Draws, philox

ONES = 0xFFFFFFFF
# Random123 1.14, tests/kat_vectors
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip
KEYS = [((0, 0), 0), ((1, 0), 0), ((0, 1), 3), ((0xA4093822, 0x299F31D0), 0x4344), ((ONES, ONES), 0xFFFF)]


@pytest.mark.parametrize("counter, key, words", VECTORS)
def test_the_twin_gives_the_published_words(counter, key, words):
    assert philox(counter, key) == words


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request, monkeypatch):
    on(request.param, monkeypatch)


def signs(call: Call, count: int) -> np.ndarray:
    """Return the sign bit of each element: 1 + 2^-25 goes up where the sign is plus."""
    y = elementwise(call, "add", torch.ones(count), torch.tensor(2.0**-25))
    assert set(y.unique().tolist()) <= {1.0, 1.0 + 2.0**-23}
    return (y == 1).numpy().astype(int)


@pytest.mark.usefixtures("instructions")
def test_the_first_128_signs_of_lane_0_are_the_published_words():
    bits = signs(Call("random"), 2048)[::16]
    words = [int("".join(map(str, bits[i : i + 32])), 2) for i in range(0, 128, 32)]
    assert tuple(words) == VECTORS[0][2]


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("key, site", KEYS)
def test_signs_of_a_sweep_are_those_of_the_twin(key, site):
    got, draws = signs(Call("random", key, site), 3 * 2048 + 77), Draws(key, site)
    assert got.tolist() == [draws.element_sign(e) for e in range(len(got))]


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("key, site", KEYS[2:])
def test_stochastic_roundings_of_a_sweep_add_the_bits_of_the_twin(key, site):
    """Doubles whose low bits are just enough to carry, or one too few."""
    draws, count = Draws(key, site), 2048 + 100
    low = np.array([draws.element_low(e) for e in range(count)])
    for carried in (0, 1):
        # bits + r carries into the float's bits from 2^29 on.
        rest = LOW - low + carried
        x = (np.full(count, 1.5).view(np.int64) + rest).view(np.float64)
        y = elementwise(Call("nearness", key, site), "round", torch.from_numpy(x))
        expected = np.where(rest > LOW, 1, carried) * 2.0**-23 + 1.5
        assert np.array_equal(y.double().numpy(), expected)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("segment", [None, 100])
def test_signs_of_products_are_those_of_the_twin(segment):
    """Row k has its only product in step k, hence shows the sign of step k in every column."""
    key, site, steps, columns = (5, 77), 9, 143, 130
    v = 1 + 2.0**-13  # v^2 = 1 + 2^-12 + 2^-26
    y = multiply(Call("random", key, site), torch.eye(steps) * v, torch.full((steps, columns), v), segment)
    draws = Draws(key, site)
    expected = [
        [1 - draws.product_sign(c // 64, k, c % 64, k, segment or steps) for c in range(columns)] for k in range(steps)
    ]
    up = (y.double() > v * v).int()
    assert ((y.double() - (1 + 2.0**-12)).abs() <= 2.0**-23).all() and (up + (y.double() < v * v).int() == 1).all()
    assert up.tolist() == expected


@pytest.mark.usefixtures("instructions")
def test_stochastic_roundings_of_products_add_the_bits_of_the_twin():
    key, site, steps, columns = (5, 77), 9, 50, 130
    v = 1 + 5 * 2.0**-14  # the low bits of v^2 are 25 / 32 of a float's last one
    y = multiply(Call("nearness", key, site), torch.eye(steps) * v, torch.full((steps, columns), v))
    exact, draws = v * v, Draws(key, site)
    rest = int(np.float64(exact).view(np.int64)) & LOW
    below = float(np.int64(int(np.float64(exact).view(np.int64)) - rest).view(np.float64))
    for k in range(steps):
        for c in range(columns):
            carry = rest + draws.product_low(c // 64, k, c % 64, k) > LOW
            assert y[k, c].item() == below + carry * 2.0**-23, (k, c)


@pytest.mark.usefixtures("instructions")
def test_signs_of_a_sum_are_those_of_the_twin():
    """Output i of an outer sum: place i / 16, lane i % 16; the k-th addition has the k-th sign."""
    key, site, columns = (3, 4), 2, 70
    for terms in (2, 5, 150):
        x = torch.zeros(1, terms, columns)
        x[0, 0], x[0, -1] = 1, 2.0**-25
        y = reduce(Call("random", key, site), "sequence", x)[0]
        draws = Draws(key, site)
        assert (y > 1).int().tolist() == [1 - draws.sign(i // 16, terms - 1, i % 16) for i in range(columns)]


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("key, site", KEYS[2:])
def test_normal_numbers_are_those_of_box_and_muller(key, site):
    count = 2048 + 131
    zero, one = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    z, draws = elementwise(Call("random", key, site), "noise", zero, one).double().numpy(), Draws(key, site)
    expected = np.empty(count)
    for e in range(count):
        place, part, vector, lane = e // 2048, 1000 + e % 2048 // 64, e % 64 // 16, e % 16
        words = draws.words(place, part, lane)
        first, second = words[vector // 2 * 2], words[vector // 2 * 2 + 1]
        radius = sqrt(-2 * np.log((first + 0.5) * 2.0**-32))
        angle = 2 * np.pi * second * 2.0**-32
        expected[e] = radius * (np.sin(angle) if vector % 2 else np.cos(angle))
    assert np.abs(z - expected).max() < 1e-6


@pytest.mark.usefixtures("instructions")
def test_normal_numbers_have_the_normal_distribution():
    n = 2**18
    zero, one = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    z = elementwise(Call("nearness", (8, 15)), "noise", zero, one).double().numpy()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        assert abs(np.mean(z**power) - moment) < 5 * np.std(z**power) / sqrt(n)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    for limit in (3, 4):  # the tails
        expect_share(int((np.abs(z) > limit).sum()), 2 * stats.norm.sf(limit), n)
    # Neighbours, vectors, quarters of 64, blocks of 2048: neither the numbers nor their squares are correlated.
    for lag in (1, 15, 16, 17, 32, 48, 64, 128, 2048):
        for f in (z, z**2 - 1):
            r = np.corrcoef(f[:-lag], f[lag:])[0, 1]
            assert abs(r) * sqrt(n) < 5, (lag, r)
    other = elementwise(Call("nearness", (8, 16)), "noise", zero, one).double().numpy()
    assert abs(np.corrcoef(z, other)[0, 1]) * sqrt(n) < 5


@pytest.mark.usefixtures("instructions")
def test_signs_are_fair_and_independent_of_their_neighbours():
    n = 2**18
    bits = signs(Call("random", (2, 3), 1), n) * 2 - 1
    expect_share(int((bits == 1).sum()), 0.5, n)
    for lag in (1, 2, 16, 32, 512, 2048, 4096):
        assert abs(np.mean(bits[:-lag] * bits[lag:])) * sqrt(n) < 5, lag


@pytest.mark.usefixtures("instructions")
def test_keys_and_sites_have_other_bits():
    calls = [((0, 0), 0), ((1, 0), 0), ((0, 1), 0), ((0, 0), 1), ((0, 0), 2), ((1, 0), 1), ((0, 0), 256)]
    expect_uncorrelated(np.stack([signs(Call("random", key, site), 2**15) for key, site in calls], 1))
