"""Random rounding against exact rational arithmetic: which numbers come out, and how often."""

from fractions import Fraction
from math import inf, nan, sqrt

import numpy as np
import pytest
import torch

from mcaprobe.errors import InputError
from mcaprobe.rounding import Arithmetic, perturb_operand, round_pair, round_wide, split, two_product, two_sum
from mcaprobe.streams import Stream
from tests.reference import rounding_twin as twin

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
DRAWS = 20000
SIGMAS = 5.0  # of the binomial distribution: a right rounding fails one of these tests with probability < 1e-6

# Exact results, in ulps of a number near 1; then denormals, overflow.
RESULTS = {
    "quarter-ulp": lambda u: 1 + u / 4,
    "three-eighths": lambda u: -(1.5 + u * Fraction(3, 8)),
    "nearly-half": lambda u: 3 + u * Fraction(15, 16),
    "tie": lambda u: 1 + u / 2,
    "just-below-a-power-of-two": lambda u: 2 - u / 8,
    "below-a-power-of-two": lambda u: -(1 - u / 8),
    "just-above-a-power-of-two": lambda u: 4 + u / 2,
    "exact": lambda u: 5 + 4 * u,
    "exact-power-of-two": lambda u: Fraction(-8),
}


def draw(q: Fraction, dtype: torch.dtype, arithmetic: Arithmetic, call: int = 0) -> dict:
    """Return how often each number came out of rounding q."""
    value = twin.nearest(q, DTYPES[dtype])
    residual = float(q - twin.exact(value)) if np.isfinite(value) else -inf
    given = torch.full((DRAWS,), float(value), dtype=dtype), torch.full((DRAWS,), residual, dtype=torch.float64)
    y = round_pair(*given, arithmetic, Stream(3, 1, call)).numpy()
    return dict(zip(*(a.tolist() for a in np.unique(y, return_counts=True)), strict=True))


def agree(counts: dict, chances: dict) -> None:
    chances = {float(v): float(p) for v, p in chances.items()}
    assert set(counts) <= set(chances), (counts, chances)
    for v, p in chances.items():
        bound = SIGMAS * sqrt(DRAWS * p * (1 - p)) + DRAWS * 2.0**-23
        assert abs(counts.get(v, 0) - DRAWS * p) <= bound, (v, counts, chances)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["random", "nearness", "up_down", "rr", "full"])
@pytest.mark.parametrize("result", RESULTS)
def test_both_neighbours_come_out_as_often_as_the_mode_says(result, mode, dtype):
    ulp = Fraction(2) ** (1 - twin.MANTISSA[DTYPES[dtype]])
    q = Fraction(RESULTS[result](ulp))
    agree(draw(q, dtype, Arithmetic(mode)), twin.outcomes(q, DTYPES[dtype], mode))


@pytest.mark.parametrize("mode", ["random", "nearness", "rr"])
@pytest.mark.parametrize("part", [Fraction(1, 8), Fraction(-3, 8), Fraction(5, 2) + Fraction(1, 4), Fraction(-1000)])
def test_denormals_and_underflow(part, mode):
    q = part * Fraction(2) ** -149
    agree(draw(q, torch.float32, Arithmetic(mode)), twin.outcomes(q, np.float32, mode))


def test_underflow_keeps_the_sign_of_the_result():
    value, residual = torch.zeros(2000), torch.full((2000,), -(2.0**-151), dtype=torch.float64)
    for mode in ("random", "nearness"):
        y = round_pair(value, residual, Arithmetic(mode), Stream(0, 0, 0))
        assert torch.signbit(y).all() and 0 < (y != 0).sum() < 2000


def test_overflow_gives_the_largest_number_or_infinity():
    q = twin.exact(np.finfo(np.float32).max) + Fraction(2) ** 102
    agree(draw(q, torch.float32, Arithmetic("random")), twin.outcomes(q, np.float32, "random"))
    far = round_wide(
        torch.full((2000,), 1e39, dtype=torch.float64), torch.float32, Arithmetic("random"), Stream(0, 0, 0)
    )
    assert set(far.tolist()) == {float(np.finfo(np.float32).max), inf}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["random", "nearness", "rr", "pb", "full", "up_down"])
def test_zeros_infinities_and_nan_are_never_perturbed(mode, dtype):
    value = torch.tensor([0.0, -0.0, inf, -inf, nan], dtype=dtype)
    y = round_pair(value, torch.zeros(5, dtype=torch.float64), Arithmetic(mode), Stream(0, 0, 0))
    assert torch.equal(y.nan_to_num(7), value.nan_to_num(7)) and torch.equal(
        torch.signbit(y[:2]), torch.signbit(value[:2])
    )
    wide = round_wide(value.double(), dtype, Arithmetic(mode), Stream(0, 0, 0))
    assert torch.equal(wide.nan_to_num(7), value.nan_to_num(7))


@pytest.mark.parametrize("mode", ["random", "nearness", "rr", "pb", "full"])
def test_exact_results_stay(mode):
    x = torch.randn(5000)
    assert torch.equal(round_wide(x.double(), torch.float32, Arithmetic(mode), Stream(1, 0, 0)), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 8, 11, 16])
def test_rr_adds_noise_of_the_virtual_precision(bits, dtype):
    q = Fraction(11, 7)  # not a binary number
    q = twin.exact(twin.nearest(q, DTYPES[dtype]))
    y = round_pair(
        torch.full((DRAWS,), float(q), dtype=dtype),
        torch.zeros(DRAWS, dtype=torch.float64),
        Arithmetic("rr", bits),
        Stream(0, 0, bits),
    ).double()
    amplitude = 2.0 ** (1 - bits)  # e = 1 for 1 <= x < 2
    assert (y - float(q)).abs().max() <= amplitude / 2 * (1 + 2.0**-10)
    assert y.std().item() == pytest.approx(amplitude / sqrt(12), rel=0.02)
    assert abs(y.mean().item() - float(q)) < SIGMAS * amplitude / sqrt(12 * DRAWS)


@pytest.mark.parametrize("bits", [1, 4, 11, 24])
def test_rr_leaves_what_the_virtual_precision_holds(bits):
    kept = torch.randint(-(2**bits) + 1, 2**bits, (4000,)).float() * 2.0**-7
    assert torch.equal(round_pair(kept, torch.zeros(4000), Arithmetic("rr", bits), Stream(0, 0, 0)), kept)
    if bits < 24:
        lost = torch.full((4000,), 1 + 2.0**-bits)
        y = round_pair(lost, torch.zeros(4000), Arithmetic("rr", bits), Stream(0, 0, 0))
        assert (y != lost).float().mean() > 0.9


def test_rr_at_full_precision_is_stochastic_rounding():
    """Except just above a power of two, where Parker's noise is as wide as the larger ulp."""
    q = Fraction(5, 3)
    agree(draw(q, torch.float32, Arithmetic("rr", 24)), twin.outcomes(q, np.float32, "nearness"))


def test_pb_perturbs_operands_and_rounds_to_nearest():
    x = torch.tensor([0.0, -0.0, inf, nan, 1.5, -3.0])
    noisy = torch.stack([perturb_operand(x, 11, Stream(0, s, 0)) for s in range(4000)])
    assert torch.equal(noisy[:, :3], x[:3].double().expand(4000, 3)) and noisy[:, 3].isnan().all()
    assert noisy[:, 4].std().item() == pytest.approx(2.0 ** (1 - 11) / sqrt(12), rel=0.05)
    assert noisy[:, 5].std().item() == pytest.approx(2.0 ** (2 - 11) / sqrt(12), rel=0.05)
    value, residual = torch.full((100,), 1.5), torch.full((100,), 2.0**-25)
    assert torch.equal(round_pair(value, residual, Arithmetic("pb", 11), Stream(0, 0, 0)), value)


def test_steps_are_independent_of_the_residual_sign_in_random_mode():
    up = draw(1 + Fraction(1, 2**26), torch.float32, Arithmetic("random"), 5)
    down = draw(3 - Fraction(1, 2**26), torch.float32, Arithmetic("random"), 6)
    assert len(up) == len(down) == 2


def test_error_free_transformations_are_exact():
    g = np.random.default_rng(0)
    a, b = (torch.from_numpy(g.standard_normal(400) * 2.0 ** g.integers(-40, 40, 400)) for _ in range(2))
    total, error = two_sum(a, b)
    product, low = two_product(a, b)
    high, rest = split(a)
    for i in range(400):
        x, y = twin.exact(a[i]), twin.exact(b[i])
        assert twin.exact(total[i]) + twin.exact(error[i]) == x + y
        assert twin.exact(product[i]) + twin.exact(low[i]) == x * y
        assert twin.exact(high[i]) + twin.exact(rest[i]) == x and (high[i] * 2.0**30).frexp()[0] * 2**27 % 1 == 0


def test_a_setting_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="mode among random"):
        Arithmetic("upward")
    with pytest.raises(InputError, match="only with the modes rr"):
        Arithmetic("random", 11)
    for bits in (0, 54):
        with pytest.raises(InputError, match="1 to 53"):
            Arithmetic("rr", bits)
