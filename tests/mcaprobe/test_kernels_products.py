"""Sums of products of the route exact: each multiply-add rounded, in the stated order, with independent bits."""

from contextlib import contextmanager
from fractions import Fraction
from math import prod, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from mcaprobe import lockstep, perturb
from mcaprobe.kernels.call import Call
from mcaprobe.kernels.products import sum_products
from mcaprobe.lanes import lanes_of
from mcaprobe.noise import stepwise
from tests.mcaprobe.kernel_calls import (
    INSTRUCTIONS,
    MODES,
    NEEDED,
    expect_same_moments,
    expect_share,
    expect_uncorrelated,
    matrix_order,
    multiply,
    on,
    same_bits,
    site_of,
)
from tests.reference import random_rounding_twin as twin
from tests.reference.nearest_twin import Nearest
from tests.reference.rounding_twin import exact, outcomes

pytestmark = NEEDED
SAMPLES = 10_000
EVERY_MODE = ("nearest", *MODES)
INF = float("inf")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case(
    channels, sizes, outputs, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True, transposed=False,
    output_padding=0, direct=False,
) -> dict:  # fmt: skip
    def every(v):
        return (v,) * len(sizes) if isinstance(v, int) else v

    pair = (channels, outputs // groups) if transposed else (outputs, channels // groups)
    return {
        "x": (channels, *sizes), "w": (*pair, *kernel), "bias": outputs if bias else None, "stride": every(stride),
        "padding": every(padding), "dilation": every(dilation), "groups": groups, "transposed": transposed,
        "output_padding": every(output_padding), "direct": direct,
    }  # fmt: skip


CASES = {
    "1d": case(3, (5,), 2, (3,), padding=1),
    "1d-dilated-strided": case(2, (9,), 2, (3,), stride=2, dilation=2),
    "1d-direct": case(9, (3,), 2, (2,), direct=True),
    "2d": case(2, (3, 3), 2, (2, 2)),
    "2d-padded-direct": case(3, (2, 3), 2, (3, 3), padding=1, direct=True),
    "2d-direct-eights": case(10, (2, 2), 2, (2, 1), direct=True),
    "2d-no-bias": case(3, (3, 3), 2, (2, 2), bias=False, direct=True),
    "2d-strided-dilated": case(2, (5, 6), 2, (2, 2), stride=(2, 3), dilation=(2, 1), padding=(1, 0)),
    "2d-groups": case(4, (2, 3), 4, (2, 2), groups=2, direct=True),
    "2d-depthwise": case(3, (3, 3), 3, (2, 2), groups=3),
    "2d-1x1": case(12, (1, 2), 3, (1, 1)),
    "3d": case(2, (2, 2, 2), 2, (2, 1, 2), padding=(1, 0, 0)),
    "3d-direct": case(3, (2, 2, 3), 2, (1, 2, 2), stride=(1, 1, 2), direct=True),
    "3d-groups-dilated": case(4, (3, 3, 2), 2, (2, 2, 1), padding=(1, 0, 0), dilation=(2, 1, 1), groups=2),
    "transposed-1d": case(4, (3,), 2, (3,), stride=2, transposed=True),
    "transposed-2d": case(3, (2, 2), 2, (2, 2), transposed=True),
    "transposed-2d-output-padding": case(3, (2, 2), 1, (3, 3), 2, 1, transposed=True, output_padding=1),
    "transposed-2d-groups": case(4, (2, 2), 2, (2, 2), groups=2, transposed=True, direct=True),
    "transposed-2d-direct": case(3, (2, 2), 2, (3, 3), stride=2, padding=1, transposed=True, direct=True),
    "transposed-2d-dilated": case(2, (2, 2), 2, (2, 2), dilation=2, transposed=True, bias=False),
    "transposed-3d-groups": case(4, (1, 2, 2), 2, (2, 1, 2), 2, 0, (1, 2, 1), groups=2, transposed=True, direct=True),
    "transposed-3d": case(2, (2, 1, 2), 1, (2, 2, 2), stride=2, transposed=True),
}


@contextmanager
def backend(direct: bool):
    """Let every convolution have the order of oneDNN's kernels, or that of torch's own."""
    kept = stepwise.backend_of
    stepwise.backend_of = lambda *_: "mkldnn" if direct else "slow"
    try:
        yield
    finally:
        stepwise.backend_of = kept


def operands(c: dict, batch: int = 1, seed: int = 0):
    bias = None if c["bias"] is None else randn(c["bias"], seed=seed + 2)
    return randn(batch, *c["x"], seed=seed), randn(*c["w"], seed=seed + 1), bias


def rest(c: dict) -> tuple:
    return (*(list(c[k]) for k in ("stride", "padding", "dilation")), c["transposed"], list(c["output_padding"]),
            c["groups"])  # fmt: skip


def convolve(c: dict, mode: str, x, w, bias, key=(0, 0), threads=1) -> torch.Tensor:
    with backend(c["direct"]):
        return stepwise.convolution(site_of(mode, *key, threads=threads), x, w, bias, *rest(c))


def slow(c: dict, rounding, x, w, bias, samples: int) -> np.ndarray:
    """Return (samples, batch, outputs, *sizes) of the twin."""
    x, w, bias = x.numpy(), w.numpy(), None if bias is None else bias.numpy()
    call = (samples, c["stride"], c["padding"], c["dilation"], c["groups"])
    if c["transposed"]:
        return twin.transposed_convolution(rounding, x, w, bias, *call, c["output_padding"], c["direct"])
    return twin.convolution(rounding, x, w, bias, *call, c["direct"] and bias is not None)


# Moments.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_a_convolution_has_the_moments_of_rounding_every_multiply_add(name, mode):
    c = CASES[name]
    x, w, bias = operands(c)
    y = convolve(c, mode, x.expand(SAMPLES, *c["x"]), w, bias, (1, 2))
    truth = slow(c, twin.Rounding(mode, 7), x, w, bias, SAMPLES)[:, 0]
    assert y.shape == truth.shape
    expect_same_moments(y.numpy(), truth)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["mm", "mm-tall", "bmm", "mv", "dot", "linear", "addmm"])
def test_a_matrix_product_has_the_moments_of_rounding_every_multiply_add(kind, mode):
    k = 40 if kind in ("mv", "dot") else 9
    a, b, bias = randn(3, k), randn(k, 2, seed=1), randn(2, seed=2)
    rounding = twin.Rounding(mode, 7)
    if kind in ("mv", "dot"):
        a = a[:2]
        many = a.repeat(SAMPLES, 1)
        y = stepwise.mv(site_of(mode, 1, 2), many, b[:, 0])
        if kind == "dot":
            a = a[:1]
            y = torch.stack([stepwise.dot(site_of(mode, i, 0), a[0], b[:, 0]) for i in range(SAMPLES)])
        expect_same_moments(y.view(SAMPLES, -1).numpy(), laned(rounding, a.numpy(), b[:, 0].numpy()))
        return
    truth = twin.chain(rounding, a.numpy()[:, None], b.T.numpy()[None], SAMPLES)
    if kind == "bmm":
        y = stepwise.bmm(site_of(mode, 1, 2), a.expand(SAMPLES, 3, k), b.expand(SAMPLES, k, 2))
    elif kind == "mm":
        y = stepwise.mm(site_of(mode, 1, 2), a, b.repeat(1, SAMPLES)).view(3, SAMPLES, 2).transpose(0, 1)
    elif kind == "mm-tall":
        y = stepwise.mm(site_of(mode, 1, 2), a.repeat(SAMPLES, 1), b).view(SAMPLES, 3, 2)
    else:
        truth = rounding.add(truth, bias.double().numpy())
        with torch.no_grad(), perturb(mode, 3, route="exact") as block:
            many = a.repeat(SAMPLES, 1)
            y = F.linear(many, b.T, bias) if kind == "linear" else torch.addmm(bias, many, b)
        assert block.operators["addmm"] == "compiled"
        y = y.view(SAMPLES, 3, 2)
    expect_same_moments(y.contiguous().numpy(), truth)


def laned(rounding, a: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The dot product: rows of 32 into 4 x 8 chains, eights into the first vector, the vectors, then one by one."""
    samples = SAMPLES if rounding.mode != "nearest" else 1
    wide, v = np.broadcast_to(a.astype(np.float64), (samples, *a.shape)), v.astype(np.float64)
    zero = np.zeros((samples, len(a)))
    lanes = [zero] * 32
    i = 0
    for i in range(0, len(v) // 32 * 32, 32):
        lanes = [rounding.fma(wide[..., i + j], v[i + j], lanes[j]) for j in range(32)]
    i = len(v) // 32 * 32
    total = lanes[:8]
    while i + 8 <= len(v):
        total = [rounding.fma(wide[..., i + j], v[i + j], total[j]) for j in range(8)]
        i += 8
    for n in (1, 2, 3):
        total = [rounding.add(total[j], lanes[8 * n + j]) for j in range(8)]
    last = zero
    for j in range(i, len(v)):
        last = rounding.fma(wide[..., j], v[j], last)
    for j in range(8):
        last = rounding.add(last, total[j])
    return last


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("segment, bias_first", [(3, True), (4, False), (5, True)])
def test_segments_have_the_moments_of_their_roundings(segment, bias_first, mode):
    """Rows in two blocks of sixteen; each segment is a chain from zero, the first may start from the bias."""
    a, b, bias = randn(18, 10), randn(10, 1, seed=1), randn(18, seed=2)
    y = multiply(Call(mode, (4, 4)), a, b.repeat(1, SAMPLES), segment, bias, bias_first)
    rounding, total = twin.Rounding(mode, 3), None
    left, right, start = (t.double().numpy() for t in (a, b[:, 0], bias))
    for i in range(0, 10, segment):
        first = start if total is None and bias_first else None
        part = twin.chain(rounding, left[:, i : i + segment], right[i : i + segment], SAMPLES, first)
        total = part if total is None else rounding.add(total, part)
    expect_same_moments(y.T.numpy(), total if bias_first else rounding.add(total, start))


def distribution(products: list[tuple[float, float]], mode: str, start: float = 0.0) -> dict:
    """Return {result: probability} of the chain of multiply-adds, by all its paths."""
    reached = {np.float32(start): Fraction(1)}
    for a, b in products:
        after: dict = {}
        for value, chance in reached.items():
            for result, share in outcomes(exact(value) + exact(a) * exact(b), np.float32, mode).items():
                after[result] = after.get(result, Fraction(0)) + chance * share
        reached = after
    return {float(k): float(v) for k, v in reached.items() if v}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "exponents", [(0, 0), (-70, -70), (-75, -74), (-64, -63), (-51, -52), (-60, -60), (60, 40), (-149, 10)], ids=str
)
def test_the_distribution_of_a_chain_is_that_of_all_its_paths(exponents, mode):
    """Also where partial sums are denormal, or vanish: the neighbours are those on the denormal grid."""
    x = (randn(5, 1, seed=3).double() * 2.0 ** exponents[0]).float()
    w = (randn(2, 5, seed=4).double() * 2.0 ** exponents[1]).float()
    y = multiply(Call(mode, (6, 6)), w, x.expand(5, SAMPLES))
    for row, weights in zip(y, w, strict=True):
        chances = distribution(list(zip(weights.tolist(), x[:, 0].tolist(), strict=True)), mode)
        values, counts = (t.tolist() for t in row.unique(return_counts=True))
        assert set(values) <= set(chances)
        seen = dict(zip(values, counts, strict=True))
        common = {v: p for v, p in chances.items() if p * SAMPLES >= 8}
        table = [(seen.get(v, 0), p * SAMPLES) for v, p in common.items()]
        rare = SAMPLES - sum(n for n, _ in table), SAMPLES - sum(e for _, e in table)
        table += [rare] if rare[1] > 1 else []
        if len(table) > 1:
            statistic = sum((n - e) ** 2 / e for n, e in table)
            assert stats.chi2.sf(statistic, len(table) - 1) > 1e-6
        assert len(chances) == 1 or len(values) > 1


# Rounding to nearest, bit for bit.


@st.composite
def convolutions(draw):
    dims = draw(st.integers(1, 3))
    groups, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    most = {1: 9, 2: 5, 3: 3}[dims]

    def numbers(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims)))

    stride, dilation = numbers(1, 3), numbers(1, 2)
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride) if transposed else (0,) * dims
    c = case(
        groups * draw(st.integers(1, 10 if dims == 1 else 3)), numbers(1, most), groups * draw(st.integers(1, 5)),
        numbers(1, 3 if dims < 3 else 2), stride, numbers(0, 2), dilation, groups, draw(st.booleans()), transposed,
        extra, draw(st.booleans()),
    )  # fmt: skip
    for n, k, s, p, d, o in zip(c["x"][1:], c["w"][2:], stride, c["padding"], dilation, extra, strict=True):
        reach = d * (k - 1)
        assume((n - 1) * s - 2 * p + reach + 1 + o > 0 if transposed else n + 2 * p - reach > 0)
    return c, draw(st.integers(1, 3)), draw(st.integers(0, 99))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_a_convolution_rounded_to_nearest_is_the_twin_bit_for_bit(drawn):
    c, batch, seed = drawn
    x, w, bias = operands(c, batch, seed)
    y = convolve(c, "nearest", x, w, bias)
    assert np.array_equal(y.double().numpy(), slow(c, Nearest(), x, w, bias, 1)[0])
    wide = torch.convolution(*(t if t is None else t.double() for t in (x, w, bias)), *rest(c))
    sizes = torch.convolution(*(t if t is None else t.double().abs() for t in (x, w, bias)), *rest(c))
    assert y.shape == wide.shape
    steps = prod(c["w"]) // c["w"][0] + 2 if not c["transposed"] else prod(c["w"][2:]) * c["w"][0] + 2
    assert ((y - wide).abs() <= steps * 2.0**-24 * sizes).all()
    for mode in MODES:  # the same sums, within twice the bound
        assert ((convolve(c, mode, x, w, bias) - wide).abs() <= 2 * steps * 2.0**-24 * sizes).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 150), st.integers(1, 45), st.integers(0, 99))
def test_a_product_rounded_to_nearest_is_the_twin_bit_for_bit(n, k, m, segment, seed):
    a, b, bias = randn(n, k, seed=seed), randn(k, m, seed=seed + 1), randn(n, seed=seed + 2)
    y = multiply(Call("nearest"), a, b, segment, bias)
    r, total = Nearest(), None
    for i in range(0, k, segment):
        part = np.zeros((n, m))
        for j in range(i, min(i + segment, k)):
            part = r.fma(a[:, j, None].double().numpy(), b[j].double().numpy(), part)
        total = part if total is None else r.add(total, part)
    assert np.array_equal(y.double().numpy(), r.add(total, bias[:, None].double().numpy()))


@pytest.mark.parametrize("shape", [(3, 300, 5), (70, 20, 3), (2, 513, 70), (1, 1, 1), (4, 256, 4)], ids=str)
def test_a_matrix_product_rounded_to_nearest_adds_panels_of_256(shape):
    n, k, m = shape
    a, b = randn(n, k), randn(k, m, seed=1)
    truth = twin.blocked_chain(Nearest(), a.numpy()[:, None], b.T.numpy()[None], 1, 256)[0]
    for y in (
        stepwise.mm(site_of("nearest"), a, b),
        stepwise.mm(site_of("nearest"), b.T, a.T).T,
        stepwise.bmm(site_of("nearest"), a.expand(3, n, k), b.expand(3, k, m))[2],
    ):
        assert np.array_equal(y.double().numpy(), truth)


@pytest.mark.parametrize("count", [1, 7, 8, 31, 32, 33, 40, 95, 96, 131])
def test_a_dot_product_rounded_to_nearest_is_the_twin_bit_for_bit(count):
    a, v = randn(5, count), randn(count, seed=1)
    truth = laned(Nearest(), a.numpy(), v.numpy())[0]
    assert np.array_equal(stepwise.mv(site_of("nearest"), a, v).double().numpy(), truth)
    assert stepwise.dot(site_of("nearest"), a[3], v).item() == truth[3]


def test_the_reference_of_a_block_is_rounded_to_nearest():
    x, w, bias = operands(CASES["2d-padded-direct"], 2)
    with torch.no_grad(), lockstep([0], route="exact"):
        y = lanes_of(F.conv2d(x, w, bias, padding=1))
    expected = {d: convolve(CASES["2d-padded-direct"] | {"direct": d}, "nearest", x, w, bias) for d in (True, False)}
    assert any(torch.equal(y[0], e) for e in expected.values()) and not torch.equal(y[0], y[1])


# What is exact stays.


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_sums_of_dyadic_numbers_stay_exact(mode):
    g = torch.Generator().manual_seed(0)
    for c in CASES.values():
        x = torch.randint(0, 256, (3, *c["x"]), generator=g).float()
        w = torch.randint(-32, 33, c["w"], generator=g) / 64
        bias = None if c["bias"] is None else torch.randint(-9, 10, (c["bias"],), generator=g) / 4
        truth = torch.convolution(x.double(), w.double(), None if bias is None else bias.double(), *rest(c))
        for key in range(5):
            assert same_bits(convolve(c, mode, x, w, bias, (key, 1)), truth.float() + 0.0)
    a, b = torch.randint(-99, 100, (2, 71, 300), generator=g).float()
    assert torch.equal(stepwise.mm(site_of(mode), a, b.T).double(), a.double() @ b.double().T)
    assert torch.equal(stepwise.mv(site_of(mode), a, b[0]).double(), a.double() @ b[0].double())


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_zeros_and_a_zero_background_are_plus_zero(mode):
    c = case(3, (12, 12), 4, (3, 3), padding=1, bias=False)
    x, w, _ = operands(c)
    x[..., :4, :], x[..., 8:, :] = 0.0, -0.0
    y = convolve(c, mode, x, w, None)
    far = y[..., :3, :], y[..., 9:, :]
    assert all(same_bits(t, torch.zeros_like(t)) for t in far) and y[..., 5, :].all()
    bias = randn(4)
    for direct in (True, False):
        y = convolve(c | {"direct": direct}, mode, x, w, bias)
        assert torch.equal(y[..., :3, :], bias.view(1, 4, 1, 1).expand(1, 4, 3, 12))


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("segment", [None, 1, 2])
def test_an_exact_cancellation_is_plus_zero(mode, segment):
    """As in stock arithmetic, in whatever direction the processor rounds."""
    v = randn(20, 1)
    a = torch.cat([v, -v, v, -v], 1)
    b = torch.ones(4, 200)
    for key in range(10):
        y = multiply(Call(mode, (key, 0)), a, b, segment)
        assert same_bits(y, torch.zeros(20, 200)), "a product of two numbers of opposite sign"
        y = multiply(Call(mode, (key, 0)), a[:, :1], b[:1], None, -v[:, 0])
        assert same_bits(y, torch.zeros(20, 200)), "a bias"
    assert same_bits(torch.mm(a, b), torch.zeros(20, 200))


@pytest.mark.parametrize("bias_first", [True, False])
@pytest.mark.parametrize("mode", EVERY_MODE)
def test_no_products_leave_the_bias(mode, bias_first):
    bias = randn(5)
    empty = torch.zeros(5, 0), torch.zeros(0, 70)
    assert torch.equal(multiply(Call(mode), *empty), torch.zeros(5, 70))
    assert torch.equal(multiply(Call(mode), *empty, None, bias, bias_first), bias[:, None].expand(5, 70))
    with torch.no_grad(), perturb("random" if mode == "nearest" else mode, route="exact"):
        assert torch.equal(torch.zeros(3, 0) @ torch.zeros(0, 2), torch.zeros(3, 2))
        assert torch.equal(torch.zeros(3, 0) @ torch.zeros(0), torch.zeros(3))
        assert torch.zeros(0).dot(torch.zeros(0)) == 0
        assert torch.equal(torch.zeros(2, 3, 0) @ torch.zeros(2, 0, 4), torch.zeros(2, 3, 4))
        assert (torch.zeros(0, 3) @ randn(3, 2)).shape == (0, 2) and (randn(2, 3) @ torch.zeros(3, 0)).shape == (2, 0)
        assert F.conv2d(torch.zeros(0, 2, 5, 5), randn(3, 2, 3, 3)).shape == (0, 3, 3, 3)
        assert (torch.zeros(0, 2, 3) @ torch.zeros(0, 3, 4)).shape == (0, 2, 4)
        assert torch.equal(F.linear(torch.zeros(2, 0), torch.zeros(5, 0), bias), bias.expand(2, 5))


@pytest.mark.parametrize("sign", [1, -1])
def test_products_below_all_numbers_vanish_or_become_the_smallest(sign):
    tiny, small = 2.0**-149, torch.full((1, 1), 2.0**-100)
    y = multiply(Call("random", (1, 1)), small * sign, small.expand(1, SAMPLES))
    assert set(y.unique().tolist()) == {0.0, sign * tiny}
    expect_share(int((y != 0).sum()), 0.5, SAMPLES)
    x = torch.full((1, SAMPLES), 2.0**-76)
    for w, chance in ((2.0**-75, 0.25), (3 * 2.0**-76, 0.375), (2.0**-99, 0.0)):
        y = multiply(Call("nearness", (1, 1)), torch.tensor([[w * sign]]), x)
        assert set(y.unique().tolist()) <= {0.0, sign * tiny}
        expect_share(int((y != 0).sum()), chance, SAMPLES)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_all_numbers_are_the_largest_or_infinite(sign):
    largest = torch.finfo(torch.float32).max
    a, b = torch.tensor([[sign * largest, sign * largest]]), torch.full((2, SAMPLES), 1.0)
    y = multiply(Call("random", (1, 1)), a, b)
    assert set(y.unique().tolist()) == {sign * largest, sign * INF}
    expect_share(int(y.isinf().sum()), 0.5, SAMPLES)
    assert (multiply(Call("nearness", (1, 1)), a, b) == sign * INF).all()
    # A quarter of the last gap beyond the largest number (2^128 - 2^104).
    a = torch.tensor([[sign * largest, sign * 2.0**102]])
    y = multiply(Call("nearness", (1, 1)), a, b)
    assert set(y.unique().tolist()) == {sign * largest, sign * INF}
    expect_share(int(y.isinf().sum()), 0.25, SAMPLES)
    assert (multiply(Call("nearest", (1, 1)), a, b) == sign * largest).all()
    y = multiply(Call("nearness", (1, 1)), a[:, :1], b[:1], None, a[0, 1:])  # the same with a bias
    expect_share(int(y.isinf().sum()), 0.25, SAMPLES)


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("scale", [1.0, 2.0**-120])
@pytest.mark.parametrize("direct", [True, False])
def test_infinities_and_nan_go_where_stock_kernels_let_them(mode, scale, direct):
    c = case(3, (8, 9), 5, (3, 3), padding=1, direct=direct)
    x, w, bias = operands(c, 2)
    w = w * scale
    x[0, 0, 1, 1], x[0, 1, 6, 6], x[1, 2, 3, 3], x[1, 2, 3, 5], x[1, 0, 7, 8] = INF, float("nan"), INF, -INF, -INF
    stock = F.conv2d(x, w, bias, padding=1)
    assert stock.isnan().any() and stock.isinf().any()
    for key in range(5):
        y = convolve(c, mode, x, w, bias, (key, 0))
        assert torch.equal(y.isnan(), stock.isnan()) and torch.equal(y[y.isinf()], stock[stock.isinf()])
        rest_of = stock.isfinite()
        assert torch.allclose(y[rest_of], stock[rest_of], rtol=1e-5, atol=1e-5)
    bias[1], bias[2] = INF, float("nan")
    y = convolve(c, mode, x.nan_to_num(0, 0, 0), w, bias)
    assert (y[:, 1] == INF).all() and y[:, 2].isnan().all() and y[:, [0, 3, 4]].isfinite().all()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 15, 16, 17, 71])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 63, 64, 65, 130])
def test_every_number_of_rows_and_columns_is_rounded(rows, columns):
    """Nothing beyond the last row and column is written, none before it is left out."""
    a, b = randn(rows, 6), randn(6, columns, seed=1)
    wide, bound = a.double() @ b.double(), 14 * 2.0**-24 * (a.abs().double() @ b.abs().double())
    for mode in EVERY_MODE:
        ys = []
        for key in range(24):
            field = torch.full((1, rows + 2, 1, 1, columns + 2), 7.5)
            order = matrix_order(6)
            out = field[:, 1:-1, ..., 1:-1]
            sum_products(Call(mode, (key, 3)), b[None, :, None, None], a[None], None, order, (1, 1, 1), out)
            assert (field == 7.5).sum() == field.numel() - rows * columns
            ys.append(out[0, :, 0, 0])
        y = torch.stack(ys)
        assert ((y - wide).abs() <= bound).all()
        moved = (y != y[0]).any(0).double().mean()
        assert moved == 0 if mode == "nearest" else moved > 0.9


# Independence.


def noise_of(mode: str, calls: int, rows: int, columns: int) -> np.ndarray:
    """Return the noise of equal sums in every row and column: (calls, rows, columns)."""
    a, b = randn(1, 6).expand(rows, 6), randn(6, 1, seed=1).expand(6, columns)
    return torch.stack([multiply(Call(mode, (i, 5)), a, b) for i in range(calls)]).double().numpy()


ROWS, COLUMNS = [0, 1, 3, 4, 15, 16, 19], [0, 1, 8, 15, 16, 47, 63, 64, 69]  # tiles, blocks, quarters, panels


@pytest.mark.parametrize("mode", MODES)
def test_equal_sums_of_rows_and_columns_are_uncorrelated(mode):
    y = noise_of(mode, 4000, 20, 70)
    chosen = y[:, ROWS][:, :, COLUMNS].reshape(len(y), -1)
    expect_uncorrelated(chosen)
    # The same distribution everywhere.
    v = chosen.var(0)
    assert np.abs(v / v.mean() - 1).max() < 0.2
    # Contrasts: the variance of a signed sum is the sum of the variances.
    g = np.random.default_rng(0)
    z = []
    centred = y - y.mean((0, 1, 2))
    total = (centred**2).mean() * 20 * 70
    for trial in range(40):
        u, v = g.choice([-1, 1], 20), g.choice([-1, 1], 70)
        if trial == 0:
            u, v = np.ones(20), np.ones(70)
        if trial == 1:
            u, v = np.resize([1, -1], 20), np.resize([1, -1], 70)
        squares = np.einsum("nrc,r,c->n", centred, u, v) ** 2
        z.append((squares.mean() - total) / (squares.std() / sqrt(len(y))))
    assert np.abs(z).max() < 5, np.abs(z).max()


@pytest.mark.parametrize("mode", MODES)
def test_images_groups_and_matrices_of_a_batch_are_uncorrelated(mode):
    c = case(4, (2, 2), 4, (2, 2), groups=2, padding=1, direct=True)
    x, w, bias = operands(c)
    x, w = x[:, :2].repeat(2, 2, 1, 1), w[:2].repeat(2, 1, 1, 1)  # equal images, equal groups
    y = torch.stack([convolve(c, mode, x, w, bias[:1].expand(4), (i, 9)) for i in range(3000)])
    expect_uncorrelated(y[..., 1, :2].flatten(1).numpy())
    a, b = randn(1, 2, 5).expand(3, 2, 5), randn(1, 5, 2, seed=1).expand(3, 5, 2)
    y = torch.stack([stepwise.bmm(site_of(mode, i, 0), a, b) for i in range(3000)])
    expect_uncorrelated(y.flatten(1).numpy())


@pytest.mark.parametrize("mode", MODES)
def test_phases_of_a_transposed_convolution_are_uncorrelated(mode):
    c = case(5, (2, 2), 2, (2, 2), stride=2, transposed=True, direct=True, bias=False)
    x, w, _ = operands(c)
    x, w = x[..., :1, :1].expand_as(x), w[..., :1, :1].expand_as(w)
    y = torch.stack([convolve(c, mode, x, w, None, (i, 9)) for i in range(3000)])
    expect_uncorrelated(y.flatten(1).numpy())


@pytest.mark.parametrize("mode", MODES)
def test_samples_calls_and_seeds_are_uncorrelated(mode):
    x, w = randn(1, 8).expand(200, 8), randn(8, 1, seed=1).expand(8, 40)

    def noise(seed, sample, call):
        with torch.no_grad(), perturb(mode, seed, sample=sample, route="exact"):
            for _ in range(call + 1):
                y = x @ w
        return y.flatten().numpy()

    places = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1), (0, 2, 0), (2, 0, 0)]
    expect_uncorrelated(np.stack([noise(*place) for place in places], 1))


# The same bits.

LAYOUTS = {
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: F.pad(x, (1, 2, 3, 1))[..., 3:-1, 1:-2],
    "every-second": lambda x: torch.stack([x, x + 1], -1)[..., 0],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch-last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_of_the_input_changes_no_bit(name, mode):
    c = case(6, (9, 10), 5, (3, 2), stride=(1, 2), padding=1, direct=True)
    x, w, bias = operands(c, 2)
    expected = convolve(c, mode, x, w, bias)
    other = LAYOUTS[name](x)
    assert torch.equal(other, x) and not other.is_contiguous()
    assert torch.equal(convolve(c, mode, other, w, bias), expected)
    strided = w.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([bias, bias], 1)[:, 0]
    assert torch.equal(convolve(c, mode, x, *strided), expected)
    same = x[:1].expand(3, -1, -1, -1)
    assert torch.equal(convolve(c, mode, same, w, bias), convolve(c, mode, same.contiguous(), w, bias))
    a, b = x[0, 0], x[1, 1].T
    assert torch.equal(stepwise.mm(site_of(mode), a, b), stepwise.mm(site_of(mode), a.clone(), b.contiguous()))
    v = torch.stack([a[0], a[1]], 1)[:, 0]
    assert torch.equal(stepwise.mv(site_of(mode), b.T, v), stepwise.mv(site_of(mode), b.T.contiguous(), v.contiguous()))


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_instructions_and_threads_change_no_bit(mode, monkeypatch):
    """With denormal, huge, infinite and missing numbers among the operands."""
    found = {}
    for instructions in INSTRUCTIONS:
        on(instructions, monkeypatch)
        for threads in (1, 2, 3):
            site = site_of(mode, 3, 4, threads=threads)
            results = []
            for c in CASES.values():
                x, w, bias = operands(c, 40)
                x[3], x[4], x[5] = x[3] * 2.0**-130, x[4] * 2.0**127, INF
                with backend(c["direct"]):
                    results.append(stepwise.convolution(site, x, w, bias, *rest(c)))
            a, b = randn(71, 530), randn(530, 65, seed=1)
            results += [stepwise.mm(site, a, b), stepwise.mv(site, a, b[:, 0]), stepwise.mm(site, a[:1], b)]
            results += [stepwise.mm(site, a * 2.0**-100, b * 2.0**-40), stepwise.mm(site, a * 2.0**90, b * 2.0**37)]
            found[instructions, threads] = results
    first, *others = found.values()
    for other in others:
        assert all(same_bits(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_threads_outside_and_lanes_beside_change_no_bit(mode):
    x, w, v = randn(4, 3, 10, 11), randn(6, 3, 3, 3, seed=1), randn(11, 7, seed=2)

    def network(t):
        return F.conv_transpose2d(F.conv2d(t, w, padding=1), w[:, :2], stride=2)[..., :11] @ v

    alone = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for sample in (0, 3, 4):
                with torch.no_grad(), perturb(mode, 5, sample=sample, route="exact"):
                    y = network(x)
                assert torch.equal(alone.setdefault(sample, y), y)
            assert torch.get_num_threads() == threads
            for samples, at_once in (([0, 3, 4], 1), ([4, 0], 2), ([3], 2)):
                with torch.no_grad(), lockstep(
                    samples, False, mode, 5, threads=at_once, route="exact"
                ) as block:
                    lanes = lanes_of(network(block.spread(x)))
                assert all(torch.equal(lane, alone[s]) for lane, s in zip(lanes, samples, strict=True))
    finally:
        torch.set_num_threads(before)


def test_operands_that_need_gradients_give_them():
    w = randn(4, 3, 3, 3).requires_grad_()
    x = randn(2, 3, 6, 6, seed=1)
    with torch.no_grad(), perturb(route="exact"):
        expected = F.conv2d(x, w)
    with perturb(route="exact"):
        y = F.conv2d(x, w)
    assert torch.equal(y.detach(), expected) and y.requires_grad
