"""Compiled elementwise arithmetic: each result is a neighbour of the exact rational, as often as the mode says."""

from fractions import Fraction
from itertools import product
from math import isqrt, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcaprobe.kernels.call import Call
from mcaprobe.kernels.elementwise import elementwise
from tests.mcaprobe.kernel_calls import INSTRUCTIONS, MODES, NEEDED, expect_share, on, same_bits
from tests.reference.nearest_twin import Nearest
from tests.reference.rounding_twin import exact, nearest, neighbours

pytestmark = NEEDED
EVERY_MODE = ("nearest", *MODES)
DRAWS = 2048
LARGEST, INF, NAN = torch.finfo(torch.float32).max, float("inf"), float("nan")
TINY = 2.0**-149


def root(q: Fraction) -> Fraction | None:
    """Return the root of q, short of it by less than 2^-100 of its size where it is not rational."""
    if q < 0:
        return None
    scale = 1 << 600
    r = Fraction(isqrt(q.numerator * q.denominator * scale * scale), q.denominator * scale)
    return r


OPERATIONS = {
    "add": (2, lambda a, b: a + b),
    "subtract": (2, lambda a, b: a - b),
    "multiply": (2, lambda a, b: a * b),
    "divide": (2, lambda a, b: a / b if b else None),
    "multiply_add": (3, lambda a, b, c: a * b + c),
    "sqrt": (1, root),
    "leaky": (2, lambda a, b: a if a > 0 else a * b),
    "round": (1, lambda a: a),
}
# (torch.sqrt calls a vector library, wrong by one unit in a tenth of its results; numpy has the root of IEEE 754.)
STOCK = {
    "add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div, "round": torch.Tensor.float,
    "sqrt": lambda x: torch.from_numpy(np.sqrt(x.abs().numpy())),
}  # fmt: skip


def numbers(name: str, seed: int, count: int = 120) -> torch.Tensor:
    """Numbers of many magnitudes: some of few bits, whose results are exact, some whose results are denormal."""
    g = np.random.default_rng(seed)
    x = g.standard_normal(count) * 2.0 ** g.integers(-6, 7, count)
    x[::4] = g.integers(-9, 10, len(x[::4])) * 0.25
    x[1::8] *= 2.0 ** g.integers(-76, -60, len(x[1::8]))
    x[5::16] *= 2.0**-130
    x = torch.from_numpy(x)
    return x if name == "round" else x.float()


def operands_of(name: str, count: int = 120) -> list[torch.Tensor]:
    return [numbers(name, i, count) for i in range(OPERATIONS[name][0])]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_results_are_neighbours_of_the_exact_one_as_often_as_the_mode_says(name, mode):
    x = operands_of(name)
    y = elementwise(Call(mode, (3, 1)), name, *(t.expand(DRAWS, -1) for t in x)).T
    inexact = denormal = ups = 0
    expected = variance = 0.0
    for i, row in enumerate(y):
        q = OPERATIONS[name][1](*(exact(t[i]) for t in x))
        if q is None:
            continue
        low, high = (float(v) for v in neighbours(q, np.float32))
        assert set(row.tolist()) <= {low, high}, (i, q, low, high, row.unique())
        if low == high:
            continue
        inexact += 1
        denormal += abs(q) < 2.0**-126
        chance = 0.5 if mode == "random" else float((q - exact(low)) / (exact(high) - exact(low)))
        up = int((row == high).sum())
        expect_share(up, chance, DRAWS)
        ups, expected, variance = ups + up, expected + chance * DRAWS, variance + chance * (1 - chance) * DRAWS
    assert 30 < inexact < len(y) and (denormal > 3 or name in ("sqrt", "add", "subtract", "divide"))
    assert abs(ups - expected) < 5 * sqrt(variance)


@pytest.mark.parametrize("name", STOCK)
def test_rounded_to_nearest_the_results_are_the_stock_ones(name):
    x = operands_of(name, 5000)
    x = [t.abs() for t in x] if name == "sqrt" else x
    assert same_bits(elementwise(Call("nearest"), name, *x), STOCK[name](*x))


def test_a_multiply_add_rounded_to_nearest_is_rounded_once():
    a, b, c = (randn(5000, seed=i) for i in range(3))
    a[:1000], c[:1000] = 1 + 2.0**-12, -(1 + 2.0**-11)  # what two roundings would make 0
    b[:1000] = 1 + 2.0**-12
    y = elementwise(Call("nearest"), "multiply_add", a, b, c)
    assert np.array_equal(y.double(), Nearest().fma(*(t.double().numpy() for t in (a, b, c)))) and (y[:1000] > 0).all()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SPECIAL = [0.0, -0.0, 1.0, -1.0, 3.0, INF, -INF, NAN, LARGEST, -LARGEST, TINY, -TINY, 2.0**-126, 2.0**127, 0.1, -0.1]


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_special_values_are_those_of_stock_arithmetic(name, mode):
    """Infinities, NaN, signed zeros and all exact results: the same bits. Others: neighbours of the same sign."""
    pairs = list(product(SPECIAL, SPECIAL))
    a, b = (torch.tensor(t) for t in zip(*pairs, strict=True))
    y = elementwise(Call(mode, (1, 2)), name, a.expand(64, -1), b.expand(64, -1)).T
    stock = STOCK[name](a, b)
    finite = a.isfinite() & b.isfinite() & ~((b == 0) if name == "divide" else torch.tensor(False))
    for i, row in enumerate(y):
        q = OPERATIONS[name][1](exact(a[i]), exact(b[i])) if finite[i] else None
        low, high = (None, None) if q is None else (float(v) for v in neighbours(q, np.float32))
        if q is None or low == high:
            assert same_bits(row, stock[i].expand(64)), (pairs[i], row.unique(), stock[i])
            continue
        assert set(row.tolist()) <= {low, high}, (pairs[i], row.unique())
        assert (row.signbit() == (q < 0)).all()
        if mode == "random":
            assert row.unique().numel() == 2, pairs[i]
        if mode == "nearest":
            assert same_bits(row, stock[i].expand(64))


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_special_values_of_a_multiply_add(mode):
    triples = list(product([0.0, -0.0, 1.0, -1.0, INF, NAN, TINY, -TINY, LARGEST], repeat=3))
    a, b, c = (torch.tensor(t) for t in zip(*triples, strict=True))
    y = elementwise(Call(mode, (1, 2)), "multiply_add", *(t.expand(64, -1) for t in (a, b, c))).T
    stock = torch.addcmul(c.double(), a.double(), b.double())  # special values as in float32: nothing overflows
    for i, row in enumerate(y):
        if not (a[i].isfinite() and b[i].isfinite() and c[i].isfinite()):
            assert same_bits(row, stock[i].float().expand(64)), triples[i]
            continue
        q = exact(a[i]) * exact(b[i]) + exact(c[i])
        low, high = (float(v) for v in neighbours(q, np.float32))
        if q == 0:
            assert (row == 0).all() and (row.signbit() == stock[i].signbit()).all(), triples[i]
        else:
            assert set(row.tolist()) <= {low, high} and (row.signbit() == (q < 0)).all(), triples[i]


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_special_values_of_roots_casts_and_leaky_units(mode):
    x = torch.tensor([0.0, -0.0, 1.0, 4.0, 2.25, INF, -1.0, -INF, NAN, 2.0**-148])
    for key in range(8):
        call = Call(mode, (key, 0))
        assert same_bits(elementwise(call, "sqrt", x), x.sqrt())
        wide = torch.tensor([0.0, -0.0, 1.5, -LARGEST, LARGEST, INF, -INF, NAN, TINY, -TINY], dtype=torch.float64)
        assert same_bits(elementwise(call, "round", wide), wide.float())
        leaky = elementwise(call, "leaky", x, torch.tensor(0.5))
        assert same_bits(leaky, torch.nn.functional.leaky_relu(x, 0.5))
    beyond = torch.tensor([1e300, -1e300, 1e-300, -1e-300], dtype=torch.float64).expand(500, 4)
    y = elementwise(Call(mode, (1, 1)), "round", beyond).T
    expected = {"nearest": [{INF}, {-INF}, {0.0}, {-0.0}], "nearness": [{INF}, {-INF}, {0.0}, {-0.0}],
                "random": [{LARGEST, INF}, {-LARGEST, -INF}, {0.0, TINY}, {0.0, -TINY}]}[mode]  # fmt: skip
    assert [set(row.tolist()) for row in y] == expected
    assert (y.signbit() == torch.tensor([[False], [True], [False], [True]])).all()


@pytest.mark.parametrize("size", [2.0**128 - 2.0**103, 2.0**128 - 3 * 2.0**101])
def test_stochastic_rounding_beyond_the_largest_number(size):
    y = elementwise(Call("nearness", (1, 1)), "round", torch.full((20_000,), size, dtype=torch.float64))
    assert set(y.tolist()) == {LARGEST, INF}
    expect_share(int(y.isinf().sum()), (size - LARGEST) / 2.0**104, len(y))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_double_is_narrowed_to_a_neighbour(data):
    value = data.draw(st.floats(allow_nan=False))
    mode, key = data.draw(st.sampled_from(EVERY_MODE)), data.draw(st.integers(0, 2**32 - 1))
    y = elementwise(Call(mode, (key, 0)), "round", torch.full((32,), value, dtype=torch.float64))
    if np.isinf(value):
        assert (y == value).all()
        return
    low, high = neighbours(exact(value), np.float32)
    assert set(y.tolist()) <= {float(low), float(high)}
    if mode == "nearest":
        assert (y == float(nearest(exact(value), np.float32))).all()
    assert low == high or mode != "random" or y.unique().numel() == 2


@st.composite
def broadcast_pairs(draw):
    """Two or three tensors of up to five dimensions that broadcast, with permuted and sliced memory."""
    shape = draw(st.lists(st.integers(1, 4), max_size=5))
    tensors = []
    for i in range(3):
        kept = draw(st.integers(0, len(shape)))
        own = [n if draw(st.booleans()) else 1 for n in shape[len(shape) - kept :]]
        order = draw(st.permutations(range(kept)))
        wide = randn(*[2 * own[d] for d in order], seed=i)
        cut = wide[tuple(slice(None, None, 2) if draw(st.booleans()) else slice(0, own[d]) for d in order)]
        back = [order.index(d) for d in range(kept)]
        tensors.append(cut.permute(back) if kept else cut)
    return tensors


@settings(max_examples=150, deadline=None)
@given(broadcast_pairs(), st.sampled_from(EVERY_MODE))
def test_broadcasting_and_memory_layout_change_no_bit(tensors, mode):
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    plain = [t.expand(shape).clone(memory_format=torch.contiguous_format) for t in tensors]
    y = elementwise(Call(mode, (7, 7)), "multiply_add", *tensors)
    assert y.shape == shape and y.is_contiguous()
    assert same_bits(y, elementwise(Call(mode, (7, 7)), "multiply_add", *plain))
    for name in ("noise", "add"):
        wide = [t.double() if name == "noise" else t for t in tensors[:2]]
        shape = torch.broadcast_shapes(*(t.shape for t in wide))
        plain = [t.expand(shape).clone(memory_format=torch.contiguous_format) for t in wide]
        a, b = (elementwise(Call(mode, (7, 7)), name, *pair) for pair in (wide, plain))
        assert same_bits(a, b)


def test_per_channel_operands_scalars_and_empty_tensors():
    x, w = randn(2, 3, 40, 50), randn(3)
    for mode in EVERY_MODE:
        y = elementwise(Call(mode), "multiply", x, w.view(3, 1, 1))
        assert same_bits(y, elementwise(Call(mode), "multiply", x, w.view(1, 3, 1, 1).expand_as(x).contiguous()))
        last = x.contiguous(memory_format=torch.channels_last)
        assert same_bits(y, elementwise(Call(mode), "multiply", last, w.view(3, 1, 1)))
        scalar = elementwise(Call(mode), "add", torch.tensor(1.0), torch.tensor(2.0))
        assert scalar.shape == () and scalar == 3
        assert elementwise(Call(mode), "add", torch.zeros(0, 3), torch.zeros(3)).shape == (0, 3)
        assert elementwise(Call(mode), "add", torch.zeros(5, 1), torch.zeros(1, 0)).shape == (5, 0)


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_instructions_and_threads_change_no_bit(mode, monkeypatch):
    found = []
    for instructions in INSTRUCTIONS:
        on(instructions, monkeypatch)
        for threads in (1, 2, 3):
            call = Call(mode, (11, 12), 5, threads)
            found.append([elementwise(call, name, *operands_of(name, 3 * 2048 + 99)) for name in OPERATIONS])
            a, b = numbers("round", 0, 5000), numbers("round", 1, 5000)
            found[-1] += [elementwise(call, "noise", a, b), elementwise(call, "noise", a.float(), b.float())]
    assert all(same_bits(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_the_first_elements_do_not_depend_on_how_many_follow(mode):
    x, y = operands_of("add", 5000)
    whole = elementwise(Call(mode), "add", x, y)
    for count in (1, 15, 16, 17, 2047, 2048, 2049, 4100):
        assert same_bits(elementwise(Call(mode), "add", x[:count], y[:count]), whole[:count])


@pytest.mark.parametrize("mode", MODES)
def test_noise_has_the_stated_centre_and_deviation(mode):
    n = 60_000
    for value, std in ((1.25, 1e-3), (-3e8, 1e5), (0.0, 2.0**-140), (1.25, 3e-8)):
        wide = torch.full((n,), value, dtype=torch.float64)
        y = elementwise(Call(mode, (2, 9)), "noise", wide, torch.tensor(std, dtype=torch.float64)).double()
        gap = float(np.spacing(np.float32(max(abs(value), 2.0**-140))))
        spread = y.std().item()
        assert abs(y.mean().item() - value) < 5 * spread / sqrt(n)
        # Rounding adds 1/3 (random) or 1/6 (nearness) of a squared gap, where the noise covers several gaps.
        added = gap**2 * (1 / 3 if mode == "random" else 1 / 6)
        assert std < 2 * gap or spread == pytest.approx(sqrt(std**2 + added), rel=5 / sqrt(2 * n))
        assert std > 2 * gap or std < spread < 2 * std + gap


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_without_noise_a_number_of_the_format_stays(mode):
    x = numbers("add", 3, 3000)
    assert same_bits(elementwise(Call(mode), "noise", x, torch.zeros(3000)), x)
    for std in (INF, NAN):
        assert same_bits(elementwise(Call(mode), "noise", x, torch.full((3000,), std)), x)
    special = torch.tensor([INF, -INF, NAN])
    assert same_bits(elementwise(Call(mode), "noise", special, torch.ones(3)), special)
    y = elementwise(Call(mode), "noise", x, torch.ones(3000))
    assert same_bits(y, x) if mode == "nearest" else (y != x).double().mean() > 0.99
