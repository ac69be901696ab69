"""Sums of products: their noise against a twin that rounds randomly after every multiply-add; what is exact stays."""

from math import prod, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mcaprobe import lockstep, perturb
from mcaprobe.lanes import lanes_of
from mcaprobe.noise.exactness import exact_sums
from mcaprobe.rounding import Arithmetic
from tests.reference import random_rounding_twin as twin

pytestmark = pytest.mark.usefixtures("each_route")
TWIN_SAMPLES = 2000
DRAWS = 240
MODES = ("random", "nearness")


def conv(
    channels,
    sizes,
    outputs,
    kernel,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    bias=True,
    transposed=False,
    direct=False,
    output_padding=0,
    data="normal",
):
    dims = len(sizes)

    def every(v):
        return (v,) * dims if isinstance(v, int) else v

    shape = (channels, outputs // groups) if transposed else (outputs, channels // groups)
    return {
        "kind": "conv",
        "x": (channels, *sizes),
        "w": (*shape, *kernel),
        "bias": outputs if bias else None,
        "direct": direct,
        "stride": every(stride),
        "padding": every(padding),
        "dilation": every(dilation),
        "groups": groups,
        "data": data,
        "transposed": transposed,
        "output_padding": every(output_padding),
    }


def matrix(kind, rows, inner, columns, data="normal"):
    return {"kind": kind, "x": (rows, inner), "w": (inner, columns), "data": data}


CASES = {
    "conv1d": conv(3, (12,), 4, (5,), padding=2),
    "conv1d-dilated": conv(4, (14,), 3, (3,), dilation=3),
    "conv1d-strided-direct": conv(9, (11,), 4, (3,), stride=2, direct=True),
    "conv2d": conv(4, (5, 5), 3, (3, 3)),
    "conv2d-padded": conv(4, (4, 4), 3, (3, 3), padding=1),
    "conv2d-strided": conv(6, (7, 7), 3, (3, 3), stride=2),
    "conv2d-dilated": conv(5, (7, 7), 3, (3, 3), dilation=2),
    "conv2d-5x5": conv(4, (6, 6), 4, (5, 5), direct=True),
    "conv2d-1x1": conv(32, (3, 3), 4, (1, 1)),
    "conv2d-no-bias": conv(8, (4, 4), 4, (3, 3), bias=False),
    "conv2d-1x7": conv(6, (2, 9), 4, (1, 7)),
    "conv2d-direct": conv(16, (4, 4), 4, (3, 3), direct=True),
    "conv2d-direct-padded": conv(12, (3, 4), 4, (3, 3), padding=1, direct=True),
    "conv2d-direct-no-bias": conv(8, (4, 4), 4, (3, 3), bias=False, direct=True),
    "conv2d-grouped": conv(8, (4, 4), 4, (3, 3), groups=2, direct=True),
    "conv2d-depthwise": conv(6, (5, 5), 6, (3, 3), groups=6, direct=True),
    "conv2d-sparse-input": conv(6, (5, 5), 4, (3, 3), data="relu"),
    "conv2d-sparse-weights": conv(6, (5, 5), 4, (3, 3), data="pruned"),
    "conv2d-positive": conv(6, (4, 4), 4, (3, 3), data="positive"),
    "conv2d-large-bias": conv(8, (4, 4), 4, (3, 3), data="large-bias", direct=True),
    "conv3d": conv(3, (3, 3, 4), 3, (2, 3, 3)),
    "conv3d-direct": conv(8, (3, 3, 3), 3, (3, 2, 2), padding=(1, 0, 0), direct=True),
    "transposed1d": conv(8, (6,), 3, (4,), stride=2, transposed=True),
    "transposed2d": conv(12, (3, 3), 2, (2, 2), stride=2, transposed=True),
    "transposed2d-overlapping": conv(6, (3, 3), 2, (3, 3), stride=1, padding=1, transposed=True),
    "transposed2d-output-padding": conv(6, (3, 3), 2, (3, 3), stride=2, padding=1, output_padding=1, transposed=True),
    "transposed2d-grouped": conv(8, (3, 3), 4, (2, 2), stride=2, groups=2, transposed=True, bias=False, direct=True),
    "transposed2d-direct": conv(10, (4, 4), 3, (3, 3), padding=1, transposed=True, direct=True),
    "transposed2d-direct-strided": conv(10, (4, 4), 3, (3, 3), stride=2, transposed=True, direct=True),
    "transposed3d": conv(6, (2, 2, 2), 2, (2, 2, 2), stride=2, transposed=True),
    "mm": matrix("mm", 6, 64, 6),
    "mm-short": matrix("mm", 8, 5, 6),
    "mm-two-panels": matrix("mm", 4, 512, 5),
    "mm-three-panels": matrix("mm", 4, 600, 4, data="positive"),
    "mm-sparse": matrix("mm", 6, 96, 6, data="relu"),
    "bmm": matrix("bmm", 5, 48, 6),
    "addmm": matrix("addmm", 6, 40, 6),
    "linear": matrix("linear", 6, 100, 6),
    "linear-3d": matrix("linear-3d", 6, 24, 6),
    "mv": matrix("mv", 24, 96, 1),
    "dot": matrix("dot", 1, 300, 1),
}


def operands(case: dict, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(case["x"], generator=g), torch.randn(case["w"], generator=g)
    width = case.get("bias", case["w"][-1])
    bias = torch.randn(width, generator=g) if width is not None else None
    if case["data"] == "relu":
        x = x.relu()
    if case["data"] == "pruned":
        w = w * (torch.rand(w.shape, generator=g) > 0.6)
    if case["data"] == "positive":
        x, w = x.abs() + 0.1, w.abs() + 0.1
    if case["data"] == "large-bias":
        bias = bias * 30
    return x, w, bias


def run_model(case: dict, x, w, bias, copies: int):
    """Return the operator on `copies` copies of the input: (copies, ...)."""
    kind = case["kind"]
    if kind == "conv":
        many = x.expand(copies, *x.shape).contiguous()
        rest = [list(case[k]) for k in ("stride", "padding", "dilation")]
        call = (*rest, case["transposed"], list(case["output_padding"]), case["groups"])
        return lambda spread: torch.convolution(spread(many), w, bias, *call)
    if kind == "bmm":
        many = x.expand(copies, *x.shape).contiguous()
        return lambda spread: torch.bmm(spread(many), w.expand(copies, *w.shape).contiguous())
    if kind in ("mv", "dot"):
        rows = x.repeat(copies, 1)
        if kind == "dot":
            return lambda spread: torch.stack([torch.dot(row, w[:, 0]) for row in spread(rows)]).view(copies, 1, 1)
        return lambda spread: torch.mv(spread(rows), w[:, 0]).view(copies, -1, 1)
    rows = x.repeat(copies, 1)
    if kind == "mm":
        return lambda spread: torch.mm(spread(rows), w).view(copies, *x.shape[:1], -1)
    if kind == "addmm":
        return lambda spread: torch.addmm(bias, spread(rows), w).view(copies, *x.shape[:1], -1)
    if kind == "linear":
        return lambda spread: F.linear(spread(rows), w.T.contiguous(), bias).view(copies, *x.shape[:1], -1)
    return lambda spread: F.linear(spread(rows.view(copies, *x.shape)), w.T.contiguous(), bias)


def run_twin(case: dict, x, w, bias, mode: str):
    rounding = twin.Rounding(mode, 1)
    x, w, bias = x.numpy(), w.numpy(), None if bias is None else bias.numpy()
    if case["kind"] == "conv":
        rest = (TWIN_SAMPLES, case["stride"], case["padding"], case["dilation"], case["groups"])
        if case["transposed"]:
            return twin.transposed_convolution(
                rounding, x[None], w, bias, *rest, case["output_padding"], case["direct"]
            )[:, 0]
        return twin.convolution(rounding, x[None], w, bias, *rest, case["direct"])[:, 0]
    rows, columns = x[:, None, :], w.T[None]
    shape = (*np.broadcast_shapes(rows.shape, columns.shape)[:-1], x.shape[1])
    rows, columns = np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)
    if case["kind"] in ("mv", "dot"):
        return _lanes(rounding, rows, columns)
    total = twin.blocked_chain(rounding, rows, columns, TWIN_SAMPLES, 256)
    if case["kind"] in ("addmm", "linear", "linear-3d"):
        total = rounding.add(total, np.float64(bias))
    return total


def _lanes(rounding, x, w, lanes: int = 32):
    """Four vectors of eight partial sums; the vectors are added up, then the eight elements."""
    columns = [twin.chain(rounding, x[..., i::lanes], w[..., i::lanes], TWIN_SAMPLES) for i in range(lanes)]
    vector = [_sum(rounding, columns[i::8]) for i in range(8)]
    return _sum(rounding, vector)


def _sum(rounding, parts):
    total = parts[0]
    for part in parts[1:]:
        total = rounding.add(total, part)
    return total


def copies_of(case: dict) -> int:
    """Return how many copies of the input make a batch that torch computes with the kernel that the case names."""
    if case["kind"] != "conv":
        return 6
    fitting = [c for c in (16, 6, 3, 1) if backend_is_direct(case, c) == case["direct"]]
    assert fitting, "no batch runs the kernel that the case names"
    return fitting[0]


def backend_is_direct(case: dict, copies: int) -> bool:
    x, w, bias = operands(case)
    call = [list(case[k]) for k in ("stride", "padding", "dilation")]
    call += [case["transposed"], list(case["output_padding"]), case["groups"]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as inside perturb()
    try:
        return "Slow" not in str(torch._C._select_conv_backend(x.expand(copies, *x.shape), w, bias, *call))
    finally:
        torch.set_num_threads(threads)


def ratio(case: dict, mode: str) -> float:
    """Return the model's rms standard deviation over the twin's."""
    x, w, bias = operands(case)
    copies = copies_of(case)
    call = run_model(case, x, w, bias, copies)
    with torch.no_grad(), lockstep(range(DRAWS // copies), reference=False, mode=mode) as block:
        y = call(block.spread)
    draws = torch.cat(lanes_of(y)).double().numpy()
    truth = run_twin(case, x, w, bias, mode)
    assert draws.shape[1:] == truth.shape[1:]
    assert np.abs(draws.mean(0) - truth.mean(0)).max() < 20 * np.sqrt(truth.var(0).mean())
    return sqrt(draws.var(0, ddof=1).mean() / truth.var(0, ddof=1).mean())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_the_noise_is_that_of_rounding_after_every_multiply_add(name, mode):
    assert 0.8 < ratio(CASES[name], mode) < 1.25


# What is exact stays exact.

EXACT_MODES = ("random", "nearness", "rr")


def perturbed(call, mode="random", count=3, **options):
    results = []
    for s in range(count):
        with torch.no_grad(), perturb(mode, sample=s, **options):
            results.append(call())
    return torch.stack(results)


def image_with_background(g):
    x = torch.zeros(1, 3, 12, 12)
    x[:, :, 4:8, 4:8] = torch.randn(1, 3, 4, 4, generator=g)
    return x


@pytest.mark.parametrize("mode", [*EXACT_MODES, "pb", "full", "up_down"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_zero_background_stays_bit_exact(mode, bias):
    g = torch.Generator().manual_seed(0)
    x, w, b = (
        image_with_background(g),
        torch.randn(4, 3, 3, 3, generator=g),
        torch.randn(4, generator=g) if bias else None,
    )
    stock = F.conv2d(x, w, b, padding=1)
    y = perturbed(lambda: F.conv2d(x, w, b, padding=1), mode)
    far = F.max_pool2d(x.abs().amax(1, keepdim=True), 3, 1, 1)[0, 0] == 0
    if mode in EXACT_MODES or not bias:
        assert torch.equal(y[..., far], stock[..., far].expand(3, *stock[..., far].shape))
    assert (y[..., ~far] != stock[..., ~far]).float().mean() > 0.3


@pytest.mark.parametrize("mode", EXACT_MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_integers_times_dyadic_weights_stay_exact(mode, dtype):
    """Small integers and weights of few bits: every partial sum is a number of the format, whatever the order."""
    g = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (2, 5, 9, 9), generator=g).to(dtype)
    w = torch.randint(-32, 33, (4, 5, 3, 3), generator=g).to(dtype) / 64
    b = torch.randint(-8, 9, (4,), generator=g).to(dtype) / 4
    for call in (
        lambda: F.conv2d(x, w, b, padding=1),
        lambda: F.conv2d(x, w),
        lambda: F.conv_transpose2d(x, w.transpose(0, 1), b),
        lambda: F.conv2d(x.repeat(8, 1, 1, 1), w, b),
        lambda: F.linear(x, w.new_ones(3, 9), b[:3]),
        lambda: x.flatten(2)[0] @ x.flatten(2)[0].T,
        lambda: torch.mv(x[0, 0], x[0, 0, 0]),
        lambda: torch.dot(x[0, 0, 0], x[0, 0, 1]),
        lambda: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    ):
        stock = call()
        assert torch.equal(perturbed(call, mode), stock.expand(3, *stock.shape))


def test_sums_that_outgrow_the_format_are_perturbed():
    x = torch.full((1, 1, 8, 8), 4097.0)
    y = perturbed(lambda: F.conv2d(x, x[:, :, :3, :3]))
    assert (y != y[0]).any()
    small = perturbed(lambda: F.conv2d(x * 2.0**-70, x[:, :, :3, :3] * 2.0**-76))  # denormal products are not exact
    assert torch.isfinite(small).all()


def test_a_virtual_precision_perturbs_sums_that_it_cannot_hold():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    w = torch.ones(1, 1, 3, 3)
    assert torch.equal(perturbed(lambda: F.conv2d(x, w), "rr", precision=11), torch.full((3, 1, 1, 1, 1), 45.0))
    y = perturbed(lambda: F.conv2d(x, w), "rr", precision=4, count=20)
    assert y.std() > 0.5


def test_the_proof_of_exactness_is_sound():
    """Against sums in Python integers: where a sum is called exact, sums of absolute values fit 24 bits of the unit."""
    g = np.random.default_rng(0)
    proven = refused = 0
    for trial in range(300):
        bits, scale = g.integers(1, 16), int(g.integers(-60, 60))
        a = g.integers(-(2**bits), 2**bits, (3, 20))
        b = g.integers(-(2**8), 2**8, (20, 3))
        x, w = torch.tensor(a * 2.0**scale, dtype=torch.float32), torch.tensor(b / 256.0, dtype=torch.float32)
        exact = exact_sums(Arithmetic("random"), (x, w), lambda x=x, w=w: x.abs() @ w.abs())
        bound = np.abs(a) @ np.abs(b)
        for i, j in np.ndindex(3, 3):
            if exact is not None and exact[i, j]:
                common = int(np.gcd.reduce(a[np.nonzero(a)])) if a.any() else 1
                unit = (common & -common) * int(np.gcd.reduce(b.ravel()) & -np.gcd.reduce(b.ravel()))
                assert bound[i, j] < 2**24 * unit, trial
                proven += 1
            else:
                refused += 1
    assert proven > 300 and refused > 300


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_single_products_have_one_rounding(dtype):
    g = torch.Generator().manual_seed(2)
    x, w = torch.randn(1, 4, 6, 6, generator=g, dtype=dtype), torch.randn(4, 1, 1, 1, generator=g, dtype=dtype)
    for call in (lambda: F.conv2d(x, w, groups=4), lambda: x[0, 0, :, :1] @ x[0, 0, :1, :]):
        stock = call()
        y = perturbed(call, count=16)
        gap = torch.nextafter(stock.abs(), torch.full_like(stock, torch.inf)) - stock.abs()
        assert ((y - stock).abs() <= gap).all() and (y.amax(0) > y.amin(0)).float().mean() > 0.95
    one = torch.eye(4, dtype=dtype).view(4, 4, 1, 1)
    assert torch.equal(perturbed(lambda: F.conv2d(x, one)), x.expand(3, *x.shape))


@pytest.mark.parametrize("mode", ["pb", "full"])
def test_inbound_noise_reaches_single_products(mode):
    x, w = torch.full((1, 1, 40, 40), 1.5), torch.full((1, 1, 1, 1), 1.25)
    y = perturbed(lambda: F.conv2d(x, w), mode, 1, precision=11)
    assert y.std().item() > 2.0**-12


@pytest.mark.parametrize("precision", [8, 11])
def test_rr_gives_sums_the_noise_of_a_narrow_format(precision):
    """K additions, each rounded with noise 2^(e - t): the twin adds it step by step."""
    x, w = operands(CASES["mm"])[:2]
    with torch.no_grad(), lockstep(range(200), reference=False, mode="rr", precision=precision) as block:
        y = torch.stack(lanes_of(block.spread(x) @ w)).double()
    g = np.random.default_rng(0)
    total = np.zeros((800, 6, 6))
    for k in range(64):
        total = total + x.double().numpy()[:, k, None] * w.double().numpy()[k]
        scale = 2.0 ** (np.frexp(total)[1] - precision)
        total = total + scale * (g.random(total.shape) - 0.5)
    assert 0.8 < y.var(0).mean().sqrt().item() / sqrt(total.var(0).mean()) < 1.25


def test_infinities_and_nan_stay_where_they_are():
    x = torch.randn(1, 2, 8, 8)
    x[0, 0, 1, 1], x[0, 0, 6, 6] = float("inf"), float("nan")
    w = torch.randn(2, 2, 3, 3)
    stock, y = F.conv2d(x, w, padding=1), perturbed(lambda: F.conv2d(x, w, padding=1))
    for kind in (torch.isnan, torch.isinf):
        assert torch.equal(kind(y), kind(stock).expand(3, *stock.shape))
    finite = stock.isfinite()
    assert (y[:, finite] - stock[finite]).abs().max() < 1e-4 and (y[:, finite] != stock[finite]).any()


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e18])
def test_magnitudes_do_not_matter(scale):
    x, w = torch.randn(4, 50) * scale, torch.randn(50, 4) * 1e-6
    y = perturbed(lambda: x @ w, count=60).double()
    relative = (y.std(0).square().mean().sqrt() / (x.double() @ w.double()).square().mean().sqrt()).item()
    reference = perturbed(lambda: (x / scale) @ (w * 1e6), count=60).double().std(0).square().mean().sqrt().item()
    size = ((x / scale).double() @ (w * 1e6).double()).square().mean().sqrt().item()
    assert relative == pytest.approx(reference / size, rel=0.25)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_products(shape):
    a = torch.randn(shape)
    with perturb():
        assert torch.equal(a @ torch.randn(shape[1], 2), torch.zeros(shape[0], 2))
        assert F.conv2d(torch.randn(0, 2, 5, 5), torch.randn(3, 2, 3, 3)).shape == (0, 3, 3, 3)
    assert prod(shape) == 0


def test_the_unbatched_convolution_is_that_of_a_batch_of_one():
    x, w = torch.randn(3, 6, 6), torch.randn(2, 3, 3, 3)
    assert torch.equal(perturbed(lambda: F.conv2d(x, w)), perturbed(lambda: F.conv2d(x[None], w))[:, 0])
