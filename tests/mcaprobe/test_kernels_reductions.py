"""Compiled sums: the order of torch's own kernels, each addition rounded."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcaprobe import lockstep, perturb
from mcaprobe.kernels.call import Call
from mcaprobe.kernels.elementwise import elementwise
from mcaprobe.kernels.reductions import reduce
from mcaprobe.lanes import lanes_of
from tests.mcaprobe.kernel_calls import (
    INSTRUCTIONS,
    MODES,
    NEEDED,
    expect_same_moments,
    expect_share,
    expect_uncorrelated,
    multiply,
    on,
    same_bits,
)
from tests.reference import sum_twin
from tests.reference.nearest_twin import Nearest
from tests.reference.random_rounding_twin import Rounding

pytestmark = NEEDED
SAMPLES = 10_000
EVERY_MODE = ("nearest", *MODES)
ORDERS = ("inner", "outer", "dot", "vector", "sequence")
COUNTS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 100, 255, 256, 257, 500, 511, 513, 1000, 2100, 4095, 5000]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3


def kernel(call: Call, order: str, x: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
    """Return the sums of x (outputs, count), flat."""
    if order in ("outer", "sequence"):
        return reduce(call, order, x.T[None]).flatten()
    return reduce(call, order, x[:, :, None], factor).flatten()


def slow(rounding, order: str, x: torch.Tensor, factor: torch.Tensor | None, samples: int) -> np.ndarray:
    function = getattr(sum_twin, order)
    rest = () if factor is None else (factor.numpy(),)
    return function(rounding, x.numpy(), *rest, samples)


def factor_of(order: str, outputs: int, count: int) -> torch.Tensor | None:
    return numbers(outputs, count, seed=5) if order == "dot" else None


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("order", ORDERS)
def test_rounded_to_nearest_a_sum_is_the_twin_bit_for_bit(order, count):
    x, factor = numbers(5, count, seed=count), factor_of(order, 5, count)
    y = kernel(Call("nearest"), order, x, factor)
    assert np.array_equal(y.double().numpy(), slow(Nearest(), order, x, factor, 1)[0])
    wide = (x.double() * (1 if factor is None else factor.double())).sum(1)
    assert (y - wide).abs().max() <= count * 2.0**-24 * (x.abs().sum(1) * 5).max()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ORDERS), st.integers(1, 40), st.integers(1, 600), st.integers(0, 99))
def test_rounded_to_nearest_any_sum_is_the_twin_bit_for_bit(order, outputs, count, seed):
    x, factor = numbers(outputs, count, seed=seed), factor_of(order, outputs, count)
    y = kernel(Call("nearest"), order, x, factor)
    assert np.array_equal(y.double().numpy(), slow(Nearest(), order, x, factor, 1)[0])


TORCH_SUMS = """
import torch
from mcaprobe.kernels.call import Call
from mcaprobe.kernels.reductions import reduce
torch.set_num_threads(1)
print(torch.backends.cpu.get_cpu_capability())
for count in (1, 5, 8, 17, 32, 100, 257, 513, 1000, 5000, 70000):
    g = torch.Generator().manual_seed(count)
    x, tall = torch.randn(3, count, generator=g) + 0.3, torch.randn(count, 64, generator=g) + 0.3
    nearest = Call("nearest")
    for name, y, stock in (
        ("inner", reduce(nearest, "inner", x[:, :, None]).flatten(), x.sum(1)),
        ("all", reduce(nearest, "inner", x[:1, :, None]).flatten(), x[0].sum()[None]),
        ("outer", reduce(nearest, "outer", tall[None])[0], tall.sum(0)),
    ):
        print(name, count, torch.equal(y, stock))
"""


def test_the_orders_are_those_of_torch_on_avx2():
    """In a process whose torch takes its AVX2 kernels (64 columns: those beyond the last 32 have another order)."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-c", TORCH_SUMS]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    capability, *lines = run.stdout.splitlines()
    if capability != "AVX2":
        pytest.skip(f"torch took {capability}")
    assert len(lines) == 33 and all(line.endswith("True") for line in lines), run.stdout


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "order, count", [("inner", 9), ("inner", 70), ("outer", 6), ("outer", 40), ("dot", 6), ("dot", 45), ("vector", 21),
                     ("sequence", 12), ("inner", 33)],
)  # fmt: skip
def test_a_sum_has_the_moments_of_rounding_every_addition(order, count, mode):
    x, factor = numbers(3, count), factor_of(order, 3, count)
    many = x.repeat(SAMPLES, 1), None if factor is None else factor.repeat(SAMPLES, 1)
    y = kernel(Call(mode, (2, 2)), order, *many).view(SAMPLES, 3)
    expect_same_moments(y.numpy(), slow(Rounding(mode, 1), order, x, factor, SAMPLES))


@pytest.mark.parametrize("mode", MODES)
def test_long_cascades_have_the_moments_of_rounding_every_addition(mode):
    """Two levels and more: 300 terms are 18 runs of 16."""
    x = numbers(1, 300)
    y = kernel(Call(mode, (2, 2)), "outer", x.expand(SAMPLES, 300)).view(SAMPLES, 1)
    expect_same_moments(y.numpy(), slow(Rounding(mode, 1), "outer", x, None, SAMPLES))


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("order", ORDERS)
def test_exact_sums_zeros_and_cancellations(order, mode):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-99, 100, (20, 333), generator=g) / 8
    factor = torch.randint(-99, 100, (20, 333), generator=g).float() if order == "dot" else None
    truth = (x.double() * (1 if factor is None else factor.double())).sum(1)
    pair = numbers(20, 40)
    opposite = torch.cat([pair, -pair], 1)
    single = torch.zeros(20, 50)
    single[:, 7] = pair[:, 0]
    for key in range(8):
        call = Call(mode, (key, 0))
        assert torch.equal(kernel(call, order, x, factor).double(), truth)
        for zeros in (torch.zeros(20, 50), -torch.zeros(20, 50), single[:, 8:]):
            ones = torch.ones(20, zeros.shape[1]) if order == "dot" else None
            assert same_bits(kernel(call, order, zeros, ones), torch.zeros(20))
        ones = torch.ones(20, 50) if order == "dot" else None
        assert same_bits(kernel(call, order, single, ones), pair[:, 0])
        if order == "sequence":
            assert same_bits(kernel(call, order, opposite[:, ::40].contiguous()), torch.zeros(20))
    assert kernel(Call(mode), order, opposite, torch.ones(20, 80) if factor is not None else None).abs().max() < 1e-4


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("order", ORDERS)
def test_infinities_nan_and_the_ends_of_the_range(order, mode):
    x = numbers(6, 70)
    x[0, 3], x[1, 60], x[2, 5], x[2, 6], x[3, 69] = torch.inf, -torch.inf, torch.inf, -torch.inf, torch.nan
    ones = torch.ones(6, 70) if order == "dot" else None
    y = kernel(Call(mode), order, x, ones)
    assert y[0] == torch.inf and y[1] == -torch.inf and y[2].isnan() and y[3].isnan() and y[4:].isfinite().all()
    tiny = torch.full((6, 70), 2.0**-149) * torch.arange(1, 7)[:, None]
    assert torch.equal(kernel(Call(mode), order, tiny, ones), tiny[:, 0] * 70)  # sums of denormals are exact
    largest = torch.finfo(torch.float32).max
    ones = torch.ones(4000, 2) if order == "dot" else None
    y = kernel(Call(mode, (1, 1)), order, torch.full((4000, 2), largest), ones)
    if mode == "random":
        assert set(y.tolist()) == {largest, torch.inf}
        expect_share(int(y.isinf().sum()), 0.5, 4000)
    else:
        assert (y == torch.inf).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_equal_sums_are_uncorrelated(order, mode):
    """Neighbouring outputs, vectors of sixteen, rows before and after."""
    x, ones = numbers(1, 40).expand(40, 40), torch.ones(40, 40) if order == "dot" else None
    y = torch.stack([kernel(Call(mode, (i, 1)), order, x, ones) for i in range(2500)])
    expect_uncorrelated(y[:, [0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 39]].numpy())


@pytest.mark.parametrize("mode", EVERY_MODE)
@pytest.mark.parametrize("order", ORDERS)
def test_layouts_threads_and_instructions_change_no_bit(order, mode, monkeypatch):
    x, factor = numbers(37, 150), factor_of(order, 37, 150)
    x[3], x[4] = x[3] * 2.0**-130, x[4] * 2.0**126
    wide = torch.stack([x, x + 1], -1)[..., 0]
    cut = torch.nn.functional.pad(x, (3, 2))[:, 3:-2]
    found = []
    for instructions in INSTRUCTIONS:
        on(instructions, monkeypatch)
        for threads in (1, 2, 3):
            call = Call(mode, (8, 9), 3, threads)
            for given_ in (x, wide, cut, x.T.contiguous().T):
                other = None if factor is None else torch.stack([factor, factor], -1)[..., 1]
                found.append(kernel(call, order, given_, factor if given_ is x else other))
    assert all(same_bits(found[0], other) for other in found[1:])
    same = None if factor is None else factor[:1].expand(37, 150)
    repeated = kernel(Call(mode), order, x[:1].expand(37, 150), same)
    assert same_bits(
        repeated, kernel(Call(mode), order, x[:1].repeat(37, 1), None if same is None else same.contiguous())
    )


FORMS = {
    "all": lambda x: x.sum(),
    "last": lambda x: x.sum(-1),
    "first": lambda x: x.sum(0),
    "middle": lambda x: x.sum(1),
    "two": lambda x: x.sum((0, 2)),
    "keep": lambda x: x.sum((1, 3), keepdim=True),
    "mean": lambda x: x.mean((2, 3)),
    "strided": lambda x: x[..., ::2].sum(-1),
    "permuted": lambda x: x.permute(0, 2, 3, 1).sum(-1),
    "softmax-last": lambda x: x.softmax(-1),
    "softmax-first": lambda x: x.softmax(1),
    "double": lambda x: x.sum(1, dtype=torch.float64),
    "mean-double": lambda x: x.mean(1, dtype=torch.float64),
    "empty": lambda x: x[:0].sum(0),
    "empty-outputs": lambda x: x[:0].sum(1),
    "empty-mean": lambda x: x[:, :0].sum((2, 3)),
    "one": lambda x: x[:, :1].sum(1),
}


@pytest.mark.filterwarnings("ignore:.*runs by the route model")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_sum_is_near_the_exact_one(name, mode):
    x = numbers(3, 4, 6, 10)
    call = FORMS[name]
    exact = call(x.double())
    with torch.no_grad(), lockstep(range(12), mode=mode, route="exact"):
        lanes = lanes_of(call(x))
    assert all(t.shape == exact.shape and t.dtype == call(x).dtype for t in lanes)
    scale = x.abs().double().sum() if exact.numel() else 1.0
    assert all((t - exact).abs().max() <= 2.0**-22 * scale for t in lanes if t.numel())
    # Sums of a few numbers of 24 bits are exact in double.
    constant = not exact.numel() or name in ("one", "empty", "empty-mean", "double", "mean-double")
    assert constant == all(torch.equal(lanes[1], t) for t in lanes[2:])


def test_a_sum_in_double_of_single_numbers_is_no_compiled_one():
    """sum(dtype=float64) converts first: the kernels know no doubles."""
    x = torch.randint(-9, 9, (5, 7), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad(), perturb(route="model"):
        assert torch.equal(x.sum(0, dtype=torch.float64), x.double().sum(0))
    with torch.no_grad(), pytest.warns(match="runs by the route model"), perturb(route="exact") as block:
        y = x.sum(0, dtype=torch.float64)
    assert y.dtype == torch.float64 and torch.equal(y, x.double().sum(0))
    assert block.operators["sum"] == "modelled"


def test_kernels_of_single_numbers_refuse_doubles():
    wide = torch.zeros(1, 3, 4, dtype=torch.float64)
    for call in (
        lambda: reduce(Call("random"), "outer", wide),
        lambda: reduce(Call("random"), "dot", wide[..., :1].float(), wide[..., 0]),
        lambda: elementwise(Call("random"), "add", wide, wide),
        lambda: multiply(Call("random"), wide[0], wide[0].T),
    ):
        with pytest.raises(RuntimeError, match="Expected float32 tensors"):
            call()
