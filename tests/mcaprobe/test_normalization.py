"""Batch, instance, group and layer norm and softmax against twins that round after every step of torch's formula."""

from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mcaprobe import lockstep, perturb
from mcaprobe.lanes import lanes_of
from tests.reference import random_rounding_twin as twin

pytestmark = pytest.mark.usefixtures("each_route")
SAMPLES = 300
TWIN_SAMPLES = 1000
G = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, 3, 3, generator=G) * 2 + 1
MEAN, BIAS, WEIGHT = torch.randn(3, 4, generator=G)
VAR = torch.rand(4, generator=G) + 0.5


def samples(call, mode, count=SAMPLES):
    with torch.no_grad(), lockstep(range(count), reference=False, mode=mode):
        lanes = lanes_of(call())
    return torch.stack(lanes).double().numpy()


def double(t: torch.Tensor) -> np.ndarray:
    return t.double().numpy()


def ratio(y: np.ndarray, truth: np.ndarray) -> float:
    return sqrt(y.var(0, ddof=1).mean() / truth.var(0, ddof=1).mean())


@pytest.mark.parametrize("mode", ["random", "nearness"])
def test_batch_norm_is_alpha_beta_and_one_multiply_add(mode):
    y = samples(lambda: F.batch_norm(X, MEAN, VAR, WEIGHT, BIAS, eps=1e-3), mode)
    r = twin.Rounding(mode, 1)
    shape = (TWIN_SAMPLES, 4)
    epsilon = r.round(np.full((TWIN_SAMPLES, 1), 1e-3))
    root = r.round(np.sqrt(r.add(np.broadcast_to(double(VAR), shape), epsilon)))
    alpha = r.round(r.round(1 / root) * double(WEIGHT))
    beta = r.fma(-double(MEAN), alpha, np.broadcast_to(double(BIAS), shape))
    truth = r.fma(
        double(X)[None],
        alpha[:, None, :, None, None],
        np.broadcast_to(beta[:, None, :, None, None], (TWIN_SAMPLES, 1, 4, 1, 1)),
    )
    assert 0.85 < ratio(y, truth) < 1.18
    if mode == "nearness":
        exact = F.batch_norm(X.double(), MEAN.double(), VAR.double(), WEIGHT.double(), BIAS.double(), eps=1e-3)
        z = (y.mean(0) - double(exact)) / (y.std(0) / sqrt(SAMPLES))
        assert np.sqrt(np.mean(z**2)) < 1.8


def test_batch_norm_of_all_pixels_of_a_channel_shares_alpha_and_beta():
    """The roundings of alpha and beta move a whole channel at once: equal pixels stay nearly equal."""
    flat = torch.full((1, 4, 8, 8), 100.0)
    y = samples(lambda: F.batch_norm(flat, MEAN, VAR, WEIGHT, BIAS), "random", 200)
    within, between = y.std((3, 4)).mean(), y.mean((3, 4)).std(0).mean()
    assert between > 1.2 * within


def test_instance_norm_and_training_statistics_are_accumulated_in_double():
    x = torch.randn(2, 3, 6, 6, generator=G) + 5
    for call in (
        lambda t: F.instance_norm(t, eps=1e-3),
        lambda t: F.batch_norm(t, None, None, training=True, eps=1e-3),
    ):
        y, exact = samples(lambda c=call: c(x), "random", 200), double(call(x.double()))
        # mean, inverse deviation, beta and the last multiply-add: a few roundings of numbers near 5.
        assert np.abs(y - exact).max() < 8 * 5 * 2.0**-23 and 0.2 < y.std(0).mean() / (5 * 2.0**-24) < 1.5


@pytest.mark.parametrize("mode", ["random", "nearness"])
def test_softmax_is_exponential_sum_and_division(mode):
    x = torch.randn(6, 10, generator=G)
    y = samples(lambda: F.softmax(x.T, 0), mode).transpose(0, 2, 1)
    r = twin.Rounding(mode, 2)
    shifted = r.add(np.broadcast_to(double(x), (TWIN_SAMPLES, 6, 10)), -double(x.amax(1, keepdim=True)))
    e = r.round(np.exp(shifted))
    total = e[..., 0]
    for k in range(1, 10):
        total = r.add(total, e[..., k])
    truth = r.round(e / total[..., None])
    assert 0.85 < ratio(y, truth) < 1.18
    y = samples(lambda: F.softmax(x, -1), mode)
    lanes = [r.add(e[..., i], e[..., i + 8]) if i < 2 else e[..., i] for i in range(8)]  # one vector, its halves added
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [r.add(lanes[i], lanes[i + half]) for i in range(half)]
    assert 0.85 < ratio(y, r.round(e / lanes[0][..., None])) < 1.18


def test_log_softmax_is_x_minus_maximum_minus_logarithm():
    x = torch.randn(5, 8, generator=G)
    y = samples(lambda: F.log_softmax(x, 0), "random")
    r = twin.Rounding("random", 3)
    wide = np.broadcast_to(double(x), (TWIN_SAMPLES, 5, 8))
    shifted = r.add(wide, -double(x.amax(0)))
    e = r.round(np.exp(shifted))
    total = e[:, 0]
    for k in range(1, 5):
        total = r.add(total, e[:, k])
    truth = r.add(shifted, -r.round(np.log(total))[:, None])
    assert 0.85 < ratio(y, truth) < 1.18


def layer_norm_twin(r, x, weight, bias, epsilon):
    n = x.shape[-1]
    wide = np.broadcast_to(double(x), (TWIN_SAMPLES, *x.shape))
    mean = r.round(twin.additions(r, double(x), TWIN_SAMPLES) / n)
    difference = r.add(wide, -mean[..., None])
    squares = r.round(difference * difference)
    total = squares[..., 0]
    for k in range(1, n):
        total = r.add(total, squares[..., k])
    inverse = r.round(1 / r.round(np.sqrt(r.add(r.round(total / n), np.float64(np.float32(epsilon))))))
    y = r.fma(wide, inverse[..., None], -r.round(mean * inverse)[..., None])
    return r.fma(y, double(weight), np.broadcast_to(double(bias), y.shape))


@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_layer_norm_rounds_its_moments_and_two_multiply_adds(mode, shift):
    x, weight, bias = (
        torch.randn(12, 10, generator=G) + shift,
        torch.randn(10, generator=G),
        torch.randn(10, generator=G),
    )
    y = samples(lambda: F.layer_norm(x, (10,), weight, bias), mode)
    truth = layer_norm_twin(twin.Rounding(mode, 4), x, weight, bias, 1e-5)
    assert 0.75 < ratio(y, truth) < 1.3


def test_group_norm_is_layer_norm_of_its_groups():
    x = torch.randn(2, 6, 5, generator=G) + 1
    y = samples(lambda: F.group_norm(x, 2, torch.ones(6), torch.zeros(6)), "random")
    truth = layer_norm_twin(twin.Rounding("random", 5), x.view(4, 15), torch.ones(15), torch.zeros(15), 1e-5)
    assert 0.7 < ratio(y.reshape(SAMPLES, 4, 15), truth) < 1.35


@pytest.mark.parametrize(
    "call",
    [
        lambda d: F.batch_norm(X.to(d), MEAN.to(d), VAR.to(d), WEIGHT.to(d), BIAS.to(d)),
        lambda d: F.instance_norm(X.to(d)),
        lambda d: F.layer_norm(X.to(d), (3, 3), X[0, 0].to(d), X[0, 1].to(d)),
        lambda d: F.group_norm(X.to(d), 2, WEIGHT.to(d), BIAS.to(d)),
        lambda d: F.layer_norm(X.to(d), (3,)),
        lambda d: F.group_norm(X.to(d), 4),
        lambda d: F.batch_norm(X.to(d), MEAN.to(d), VAR.to(d)),
        lambda d: F.softmax(X.to(d), 1),
        lambda d: F.log_softmax(X.to(d), -1),
        lambda d: F.group_norm(X.to(d), 2, None, BIAS.to(d)),
        lambda d: F.layer_norm(X.to(d), (3,), None, X[0, 0, 0].to(d)),
    ],
)
def test_every_form_stays_near_the_true_value_in_both_precisions(call):
    exact = double(call(torch.float64))
    for dtype, unit in ((torch.float32, 2.0**-24), (torch.float64, 2.0**-53)):
        y = samples(lambda d=dtype: call(d), "random", 20)
        assert np.abs(y - exact).max() < 40 * unit * np.abs(exact).max() and (y.std(0) > 0).mean() > 0.5


def test_a_masked_softmax_stays_exact_where_it_is():
    x = torch.tensor([[0.3, float("-inf"), 1.2], [float("-inf"), 0.0, float("-inf")]])
    y = samples(lambda: F.softmax(x, -1), "random", 20)
    assert (y[:, 0, 1] == 0).all() and (y[:, 1] == [0, 1, 0]).all() and (y[:, 0, 0].std() > 0)


def test_running_statistics_of_one_run_are_updated_by_the_stock_operator():
    a, b = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)
    a(X)
    with torch.no_grad(), perturb():
        b(X)
    assert torch.equal(a.running_mean, b.running_mean) and torch.equal(a.running_var, b.running_var)
