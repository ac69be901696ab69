"""Elementary operations against exact rational arithmetic, and the formulas made of them."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe import lockstep, perturb
from mcaprobe.lanes import lanes_of
from mcaprobe.noise.site import Site
from mcaprobe.rounding import Arithmetic
from mcaprobe.streams import Stream
from tests.reference import rounding_twin as twin

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
MODES = ("random", "nearness", "rr")


def site(mode: str = "random", call: int = 0, precision: int | None = None) -> Site:
    return Site(Arithmetic(mode, precision), Stream(1, 2, call), False)


def numbers(seed: int, dtype: torch.dtype, count: int = 300, spread: int = 12) -> torch.Tensor:
    """Numbers of many magnitudes, a third of them of few bits, so that some results are exact."""
    g = np.random.default_rng(seed)
    x = g.standard_normal(count) * 2.0 ** g.integers(-spread, spread, count)
    x[::3] = g.integers(-9, 10, len(x[::3])) * 0.25
    return torch.from_numpy(x).to(dtype)


def samples(call, count: int = 400, **options) -> torch.Tensor:
    """Return `count` samples of call(), stacked."""
    rows = []
    for s in range(count):
        with torch.no_grad(), perturb(sample=s, **options):
            rows.append(call())
    return torch.stack(rows)


OPERATIONS = {
    "add": (2, lambda s, a, b: s.add(a, b), lambda a, b: a + b),
    "subtract": (2, lambda s, a, b: s.subtract(a, b), lambda a, b: a - b),
    "multiply": (2, lambda s, a, b: s.multiply(a, b), lambda a, b: a * b),
    "divide": (2, lambda s, a, b: s.divide(a, b), lambda a, b: a / b if b else None),
    "fma": (3, lambda s, a, b, c: s.fma(a, b, c), lambda a, b, c: a * b + c),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_results_are_the_neighbours_of_the_exact_result(name, mode, dtype):
    operands, run, truth = OPERATIONS[name]
    x = [numbers(i, dtype) for i in range(operands)]
    y = [run(site(mode, call), *x) for call in range(12)]
    inexact = moved = 0
    for i in range(len(x[0])):
        q = truth(*(twin.exact(t[i]) for t in x))
        if q is None:
            continue
        low, high = twin.neighbours(q, DTYPES[dtype])
        seen = {float(t[i]) for t in y}
        assert seen <= {float(low), float(high)}, (name, i, [float(t[i]) for t in x], seen, low, high)
        inexact += low != high
        moved += len(seen) == 2
    assert 60 < inexact < len(x[0]) - 5  # both kinds were tried
    assert moved > (0.98 if mode == "random" else 0.6) * inexact


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_square_roots_are_the_neighbours_of_the_exact_root(dtype):
    x = numbers(0, dtype).abs()
    x[:6] = torch.tensor([0.0, 1.0, 4.0, 2.25, 2.0**-40, 9.0])
    y = torch.stack([site("random", c).sqrt(x) for c in range(12)])
    for i, column in enumerate(y.T):
        q = twin.exact(x[i])
        low, high = twin.exact(column.min()), twin.exact(column.max())
        assert low**2 <= q <= high**2
        assert low == high or float(high) == float(np.nextafter(DTYPES[dtype](float(low)), DTYPES[dtype](np.inf)))
    assert torch.equal(y[:, :6], x[:6].sqrt().expand(12, 6)) and (y[0] != y[1]).any()


@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_share_of_upward_roundings(dtype, mode):
    a, b = torch.full((20000,), 1.0, dtype=dtype), torch.full((20000,), 3.0, dtype=dtype)
    y = site(mode).divide(a, b)
    _low, high = twin.neighbours(Fraction(1, 3), DTYPES[dtype])
    up = twin.outcomes(Fraction(1, 3), DTYPES[dtype], mode)[high]
    assert abs((y == float(high)).double().mean().item() - float(up)) < 5 * sqrt(up * (1 - up) / 20000)


@pytest.mark.parametrize("mode", ["random", "nearness", "rr", "pb", "full"])
def test_zero_operands_stay(mode):
    x, zero = numbers(1, torch.float32), torch.zeros(300)
    s = site(mode)
    assert not s.multiply(x, zero).any() and not s.divide(zero, x.abs() + 1).any() and not s.sqrt(zero).any()
    if mode not in ("pb", "full"):  # these perturb x itself
        assert (
            torch.equal(s.add(x, zero), x) and torch.equal(s.fma(x, zero, x), x) and torch.equal(s.subtract(x, 0.0), x)
        )


def test_special_values_are_those_of_ieee():
    a = torch.tensor([float("inf"), float("-inf"), float("nan"), 1.0, -1.0, 0.0, 3e38])
    b = torch.tensor([1.0, float("inf"), 1.0, 0.0, 0.0, 0.0, 1.0])
    for mode in ("random", "nearness", "up_down", "rr", "pb", "full"):
        s = site(mode)
        for operation, stock in ((s.divide, torch.divide), (s.multiply, torch.multiply), (s.add, torch.add)):
            got, expected = operation(a, b), stock(a, b)
            special = ~expected.isfinite() | (expected == 0)
            assert torch.equal(got[special].nan_to_num(1, 2, 3), expected[special].nan_to_num(1, 2, 3)), (mode, stock)


def test_vector_math_has_one_rounding_of_the_exact_value():
    x = numbers(2, torch.float32, spread=2)
    for function in (torch.tanh, torch.log, torch.sin, torch.expm1, torch.erf):
        arguments = x.abs() if function is torch.log else x
        exact = function(arguments.double())
        for call in range(4):
            y = site("random", call).wide(function, arguments)
            near = exact.float()
            gap = torch.nextafter(near.abs(), torch.full_like(near, torch.inf)) - near.abs()
            assert ((y.double() - exact).abs() <= gap).all() | ~exact.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vector_math_leaves_exact_values(dtype):
    zero, one = torch.zeros(50, dtype=dtype), torch.ones(50, dtype=dtype)
    with perturb("random"):
        values = [
            zero.exp(),
            one.log(),
            zero.tanh(),
            zero.sin(),
            zero.erf(),
            zero.sigmoid() * 2,
            (3 * one).pow(4),
            zero.expm1(),
            one.sqrt(),
            one.rsqrt(),
            (2 * one).reciprocal(),
            F.gelu(zero),
            F.silu(zero),
        ]
    expected = [1, 0, 0, 0, 0, 1, 81, 0, 1, 1, 0.5, 0, 0]
    for got, number in zip(values, expected, strict=True):
        assert (got == number).all(), (number, got[:4])


def test_a_constant_is_narrowed_once_for_all_elements():
    """0.1 in float32 is either of two numbers: all products of exact powers of two show the same one."""
    x = 2.0 ** torch.arange(40)
    ratios = samples(lambda: x * 0.1, 60) / x
    assert torch.equal(ratios.amin(1), ratios.amax(1)) and len(ratios.unique()) == 2
    for call in (lambda: 0.1 - 0 * x, lambda: torch.add(0 * x, x, alpha=0.1) / x, lambda: F.leaky_relu(-x, 0.1) / -x):
        seen = samples(call, 60)
        assert torch.equal(seen.amin(1), seen.amax(1)) and len(seen.unique()) == 2
    in_double = samples(lambda: x.double() * 0.1, 5)
    assert torch.equal(in_double, (x.double() * 0.1).expand(5, -1))


@pytest.mark.parametrize("mode", ["up_down", "random", "rr"])
def test_an_exact_constant_is_not_narrowed(mode):
    x = torch.zeros(200)
    with perturb(mode, precision=8 if mode == "rr" else None):
        y = x + 1.0
    steps = (y - 1) / 2.0**-23
    assert set(steps.tolist()) <= ({1.0, -0.5} if mode == "up_down" else {0.0})


def test_a_narrowing_cast_is_one_rounding():
    x = torch.linspace(0.1, 0.9, 500, dtype=torch.float64)
    for cast in (lambda: x.float(), lambda: x.to(torch.float32), lambda: torch.zeros(500).copy_(x)):
        y = samples(cast, 30)
        low = torch.where(x.float().double() <= x, x.float(), torch.nextafter(x.float(), torch.zeros(500)))
        assert ((y == low) | (y == torch.nextafter(low, torch.ones(500)))).all() and (y != y[0]).float().mean() > 0.3
    with perturb():
        assert torch.equal(torch.ones(3, dtype=torch.float64).float(), torch.ones(3))
        assert torch.equal(torch.arange(5).float(), torch.arange(5.0))


def test_integers_that_become_floats_are_rounded():
    i = torch.arange(1, 50)
    for call in (lambda: i / 49, lambda: i * 0.3, lambda: 1 / i, lambda: i.sqrt(), lambda: i**0.5):
        y, stock = samples(call, 20), call()
        assert y.dtype == torch.float32 and (y != y[0]).any() and ((y - stock).abs() <= stock.abs() * 4e-7).all()
    with perturb() as block:
        assert (i * 2 // 3).dtype == torch.int64 and torch.equal(i + 1, torch.arange(2, 51)) and i.sum() == 1225
        assert torch.equal(i / 1, i.float())
    assert "unmodelled" not in block.operators.values()


def test_unsigned_integers_are_subtracted_as_numbers():
    x, i = torch.full((4,), 0.5), torch.tensor([0, 1, 2, 200], dtype=torch.uint8)
    with perturb():
        assert torch.equal(x - i, torch.tensor([0.5, -0.5, -1.5, -199.5]))
        assert torch.equal(torch.add(i, x, alpha=0.5), torch.tensor([0.25, 1.25, 2.25, 200.25]))
        assert torch.equal(2 - x, torch.full((4,), 1.5))


def test_scalar_overloads_of_aten():
    x = torch.tensor([1.0, 2.0])
    with perturb():
        assert torch.equal(torch.ops.aten.add.Scalar(x, 1.0, 2.0), x + 2)
        assert torch.equal(torch.ops.aten.sub.Scalar(x, 1.0, 2.0), x - 2)
        assert torch.equal(torch.ops.aten.rsub.Scalar(x, 1.0, 2.0), 1 - 2 * x)


def test_lerp_reaches_both_ends():
    a, b = torch.randn(200), torch.randn(200)
    for weight in (1.0, torch.ones(200), torch.tensor(1.0)):
        assert torch.equal(samples(lambda w=weight: torch.lerp(a, b, w), 5), b.expand(5, -1))
    assert torch.equal(samples(lambda: torch.lerp(a, b, 0.0), 5), a.expand(5, -1))
    middle = samples(lambda: torch.lerp(a, b, 0.75), 5)
    assert (middle - torch.lerp(a, b, 0.75)).abs().max() < 1e-6 and (middle[0] != middle[1]).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "gelu",
        "gelu-tanh",
        "silu",
        "sigmoid",
        "softplus",
        "mish",
        "elu",
        "selu",
        "hardswish",
        "tanh",
        "exp",
        "softmax",
        "log_softmax",
        "logsigmoid",
        "normalize",
    ],
)
def test_formulas_stay_near_the_true_value_and_move(name, dtype):
    function = {
        "gelu-tanh": nn.GELU("tanh"),
        "tanh": torch.tanh,
        "exp": torch.exp,
        "softmax": lambda x: F.softmax(x, -1),
        "log_softmax": lambda x: F.log_softmax(x, -1),
    }.get(name) or getattr(F, name)
    x = torch.randn(4, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    truth, unit = function(x.double()), 2.0 ** -twin.MANTISSA[DTYPES[dtype]]
    y = samples(lambda: function(x), 20, mode="nearness").double()
    scale = truth.abs() + (x.abs().double() if dtype == torch.float64 else 1)
    assert ((y - truth).abs() / scale).max() < 16 * unit
    assert (y.std(0) > 0).float().mean() > 0.4


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu", "gelu", "softmax", "exp", "softplus", "erf", "mul", "div"])
def test_nearness_is_unbiased(name):
    """The mean of many samples comes back to the true value, where one rounding to nearest does not."""
    function = {"softmax": lambda x: F.softmax(x, -1), "mul": lambda x: x * 0.3, "div": lambda x: x / 0.7}.get(name)
    function = function or getattr(torch, name, None) or getattr(F, name)
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    draws = 300
    y = samples(lambda: function(x), draws, mode="nearness").double()
    truth = function(x.double())
    # Where nearly all draws agree their own spread says little: at least a twentieth of an ulp.
    bias = (y.mean(0) - truth) / (torch.maximum(y.std(0), truth.abs() * 2.0**-28) / sqrt(draws))
    scale = x.abs() if name == "gelu" else truth.abs()  # gelu's erf formula is off by 1e-7 absolutely
    ulps = (y.mean(0) - truth).abs() / (scale * 2.0**-24)
    assert ulps.median() < {"gelu": 1.5, "exp": 0.8}.get(name, 0.6), ulps.median()
    if name in ("tanh", "erf", "sigmoid", "mul", "div"):
        assert bias.abs().max() < 6 and bias.square().mean() < 1.5


def test_dividing_with_rounding_is_exact():
    x = numbers(3, torch.float32)
    with perturb():
        for mode in ("floor", "trunc"):
            assert torch.equal(torch.div(x, 0.75, rounding_mode=mode), torch.div(x, 0.75, rounding_mode=mode).round())


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -0.5, -1, 2.5, 4, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_powers(exponent, dtype):
    x = numbers(4, dtype, 60).abs() + 0.5
    truth = x.double() ** exponent
    y = samples(lambda: x**exponent, 12)
    assert ((y.double() - truth).abs() <= truth.abs() * 2.0 ** (2 - twin.MANTISSA[DTYPES[dtype]])).all()
    if exponent in (0, 1):
        assert torch.equal(y, (x**exponent).expand(12, -1))
    else:
        assert (y != y[0]).any()


def test_lanes_that_share_a_stream_share_the_noise_of_their_sample_only():
    x = numbers(5, torch.float32)
    with lockstep([4, 9]) as block:
        lanes = lanes_of(block.spread(x) * 0.3)
    assert torch.equal(lanes[0], x * 0.3) and not torch.equal(lanes[1], lanes[2])
