"""Sums, means, variances and cumulative sums against a twin that rounds after every addition, and against float64."""

from math import sqrt

import numpy as np
import pytest
import torch

from mcaprobe import lockstep, perturb
from mcaprobe.lanes import lanes_of
from tests.reference import random_rounding_twin as twin

pytestmark = pytest.mark.usefixtures("each_route")
SAMPLES = 400
TWIN_SAMPLES = 1000


def samples(call, count=SAMPLES, mode="random", dtype=torch.float64, **options) -> torch.Tensor:
    """Return (count, ...) samples of call()."""
    with torch.no_grad(), lockstep(range(count), reference=False, mode=mode, **options):
        lanes = lanes_of(call())
    return torch.stack(lanes).to(dtype)


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def numbers(*shape, seed=0, shift=0.3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift


def line(rounding, parts):
    total = parts[0]
    for part in parts[1:]:
        total = rounding.add(total, part)
    return total


def cascade(rounding, x):
    """Runs of 16 terms (enough for 256): each is summed and then added to the total of the runs; then the rest."""
    runs = [twin.additions(rounding, x[..., i : i + 16], TWIN_SAMPLES) for i in range(0, x.shape[-1] // 16 * 16, 16)]
    rest = x[..., x.shape[-1] // 16 * 16 :]
    tail = [twin.additions(rounding, rest, TWIN_SAMPLES)] if rest.shape[-1] else []
    return line(rounding, [*tail, line(rounding, runs)] if runs else tail)


def lanes(rounding, x):
    """4 vectors of 8 lanes, a cascade in each; the vectors are added up, then their elements."""
    columns = [cascade(rounding, x[..., i::32]) for i in range(min(32, x.shape[-1]))]
    return line(rounding, [line(rounding, columns[i::8]) for i in range(min(8, len(columns)))])


@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize(
    "order, shape, dim, shift",
    [
        (cascade, (10, 12), 0, 0.3),
        (cascade, (100, 6), 0, 0.0),
        (cascade, (200, 6), 0, 2.0),
        (cascade, (3, 12, 5), 1, 0.3),
        (lanes, (6, 64), 1, 0.3),
        (lanes, (6, 300), -1, 0.0),
        (lanes, (4, 1000), 1, 1.5),
    ],
)
def test_the_noise_of_a_sum_is_that_of_its_additions(order, shape, dim, shift, mode):
    x = numbers(*shape, shift=shift)
    y = samples(lambda: x.sum(dim), mode=mode)
    truth = order(twin.Rounding(mode, 1), np.moveaxis(x.double().numpy(), dim, -1))
    assert 0.8 < rms(y.std(0)) / sqrt(truth.var(0, ddof=1).mean()) < 1.25
    if mode == "nearness":  # unbiased: the mean comes back to the exact sum
        exact = x.double().sum(dim)
        assert rms((y.mean(0) - exact) / (y.std(0) / sqrt(SAMPLES))) < 1.7


@pytest.mark.parametrize("mode", ["random", "nearness"])
def test_a_sum_of_two_terms_is_one_addition(mode):
    x = numbers(2, 3000)
    y = samples(lambda: x.sum(0), 12, mode)
    exact, stock = x.double().sum(0), x.sum(0)
    gap = (torch.nextafter(stock.abs(), torch.full_like(stock, torch.inf)) - stock.abs()).double()
    assert ((y - exact).abs() < gap).all()
    assert (y != y[0])[:, stock != exact].any(0).double().mean() > (0.99 if mode == "random" else 0.8) and torch.equal(
        y[:, stock == exact], exact[stock == exact].expand(12, -1)
    )
    pair = torch.tensor([[1.0, 2.0**-25]]).expand(3000, 2)
    share = (samples(lambda: pair.sum(1), 1, mode)[0] > 1).double().mean().item()
    assert abs(share - (0.5 if mode == "random" else 0.25)) < 5 * sqrt(0.25 / 3000)


def test_a_sum_of_two_doubles_is_perturbed():
    x = (numbers(2, 500).double() / 3).exp()
    y = samples(lambda: x.sum(0), 8)
    assert ((y - x.sum(0)).abs() <= x.sum(0) * 2.0**-51).all() and (y != y[0]).any(0).double().mean() > 0.5


@pytest.mark.parametrize("mode", ["random", "nearness", "rr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_of_integers_and_of_one_number_stay_exact(dtype, mode):
    x = torch.randint(-99, 100, (30, 40), generator=torch.Generator().manual_seed(0)).to(dtype) / 8
    single = torch.zeros(30, 40, dtype=dtype)
    single[:, 7] = numbers(30)
    for call in (
        lambda: x.sum(),
        lambda: x.sum(0),
        lambda: x.sum(1),
        lambda: single.sum(1),
        lambda: x.cumsum(1),
        lambda: (x > 0).to(dtype).sum(),
        lambda: torch.ones(64, 32, dtype=dtype).mean(),
        lambda: x[:, :32].mean(1),
        lambda: x[:1].sum(0),
        lambda: x.sum(()),
        lambda: single[:, 7:8].mean(1),
    ):
        stock = call().double()
        assert torch.equal(samples(call, 3, mode), stock.expand(3, *stock.shape))


def test_a_virtual_precision_perturbs_integer_sums():
    x = torch.arange(1.0, 200)
    assert samples(lambda: x.sum(), 50, "rr", precision=8).std() > 20


@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.var(1),
        lambda x: x.std(0),
        lambda x: torch.var_mean(x, 1)[0],
        lambda x: torch.var_mean(x, 1)[1],
        lambda x: x.var(),
        lambda x: x.cumsum(1),
        lambda x: x.cumsum(0),
        lambda x: x.cumprod(1),
    ],
    ids=["var", "std", "var_mean", "mean-of-var_mean", "var-all", "cumsum", "cumsum-0", "cumprod"],
)
def test_what_torch_accumulates_in_double_is_rounded_once(call, mode):
    """The stock kernel is right to half an ulp, so are all samples to one; and each is one of the two neighbours."""
    x = numbers(20, 30)
    exact, stock = call(x.double()), call(x)
    gap = (torch.nextafter(stock.abs(), torch.full_like(stock, torch.inf)) - stock.abs()).double()
    assert ((stock - exact).abs() <= 0.51 * gap).all()  # the premise
    y = samples(lambda: call(x), 60, mode)
    assert ((y - exact).abs() <= gap).all() and (y != y[0]).any(0)[stock != exact].double().mean() > 0.9


def test_double_variances_and_cumulative_sums_move():
    x = numbers(20, 30).double().exp()
    for call in (
        lambda: x.var(1),
        lambda: x.std(1),
        lambda: x.cumsum(1)[:, 1:],
        lambda: x.cumprod(1)[:, 1:],
        lambda: x.mean(1),
    ):
        y = samples(call, 30)
        assert ((y - call()).abs() <= 100 * 2.0**-53 * y.abs().max()).all() and (y != y[0]).any(0).double().mean() > 0.8


@pytest.mark.parametrize("options", [{}, {"correction": 0}, {"correction": 2}, {"keepdim": True}], ids=str)
def test_the_forms_of_variance(options):
    x = numbers(4, 6, 5)
    with torch.no_grad(), perturb():
        for dim in (None, 1, (0, 2), -1):
            for function in (torch.var, torch.std):
                y = function(x, dim, **options)
                assert y.shape == function(x, dim, **options).shape and torch.isfinite(y).all()
            pair = torch.var_mean(x, dim, **options)
            assert pair[0].shape == pair[1].shape
        y = x.var(1, False)
    assert (y - x.var(1, False)).abs().max() < 1e-6


def test_means_are_sums_and_one_division():
    x = numbers(6, 48)
    y, rounding = samples(lambda: x.mean(0)), twin.Rounding("random", 2)
    total = cascade(rounding, x.double().numpy().T)
    truth = rounding.round(total / 6.0)
    assert 0.8 < rms(y.std(0)) / sqrt(truth.var(0, ddof=1).mean()) < 1.25


def test_prod_is_one_product_after_the_other():
    x = numbers(12, 20, shift=1.0)
    y, rounding = samples(lambda: x.prod(0)), twin.Rounding("random", 3)
    total = np.broadcast_to(x[0].double().numpy(), (TWIN_SAMPLES, 20))
    for row in x[1:].double().numpy():
        total = rounding.round(total * row)
    assert 0.8 < rms(y.std(0) / y.mean(0)) / sqrt((total.var(0, ddof=1) / total.mean(0) ** 2).mean()) < 1.25


def test_other_types_and_empty_dimensions():
    x = torch.arange(12).view(3, 4)
    with torch.no_grad(), perturb():
        assert x.sum().item() == 66 and x.sum(1).dtype == torch.int64 and torch.equal(x.cumsum(0), torch.cumsum(x, 0))
        assert (x > 5).sum() == 6 and x.prod(1).dtype == torch.int64
        assert (
            x.sum(dtype=torch.float32).dtype == torch.float32
            and x.float().sum(0, dtype=torch.float64).dtype == torch.float64
        )
        assert x.mean(dtype=torch.float32) == 5.5
        assert (
            torch.zeros(0, 3).sum(0).equal(torch.zeros(3))
            and torch.zeros(0).sum() == 0
            and torch.zeros(0, 3).mean(0).isnan().all()
        )
        assert (
            torch.tensor(2.0).sum(0) == 2
            and torch.tensor(2.0).mean() == 2
            and torch.ones(3, 4).sum((0, 1), keepdim=True).shape == (1, 1)
        )
        infinite = torch.tensor([float("inf"), 1.0, 2.0])
        assert infinite.sum() == float("inf") and (infinite - float("inf")).sum().isnan()
