"""Every bit depends on seed, sample, call number and element only."""

from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe import lockstep, perturb
from mcaprobe.errors import InputError
from mcaprobe.lanes import LaneTensor, lanes_of

pytestmark = pytest.mark.usefixtures("each_route")


class Net(nn.Module):
    """A small model with every family of operators, an index that depends on noise, and a write into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.group = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = F.prelu(self.norm(self.conv(x)), torch.full((1,), 0.3))
        y, index = F.max_pool2d(y, 2, return_indices=True)
        y = F.max_unpool2d(y, index, 2)
        y = F.relu(self.up(F.avg_pool2d(y, 2)), inplace=True)
        y = self.group(y) + 0.1 * F.interpolate(x[:, :1], size=y.shape[2:], mode="bilinear")
        y = y + index.float().mean() / index.numel()
        sums = torch.zeros(x.shape[0], 4)
        sums[:, :2] = y[:, :2].mean((2, 3))
        sums[:, 2:] = y[:, 2:].amax((2, 3))
        return F.softmax(self.head(sums), -1), y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net


X = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def one(net, sample=0, seed=0, mode="random", x=X, context=torch.no_grad):
    with context(), perturb(mode, seed, sample=sample):
        return net(x)


def equal(a, b) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("mode", ["random", "nearness", "up_down", "rr", "pb", "full"])
def test_a_lane_is_the_run_of_its_sample_alone(net, mode):
    alone = {s: one(net, s, mode=mode) for s in (0, 1, 5, 7)}
    for samples, reference in (([0, 1, 5, 7], True), ([7, 0], False), ([5], True), ([1], False)):
        with torch.no_grad(), lockstep(samples, reference, mode) as block:
            y = net(block.spread(X))
        for i, s in enumerate(samples):
            assert equal([lanes_of(t)[i + reference] for t in y], alone[s]), (samples, s)


def test_the_reference_is_the_stock_run_on_one_thread_or_the_same_kernels_rounding_to_nearest(net, each_route):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        stock = net(X)
    torch.set_num_threads(threads)
    with torch.no_grad(), lockstep([0]) as block:
        y = net(block.spread(X))
    reference = [lanes_of(t)[0] for t in y]
    if each_route == "model":
        assert equal(reference, stock)
        return
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(reference, stock, strict=True))
    with torch.no_grad(), lockstep([], seed=8) as block:
        alone = net(block.spread(X))
    assert equal(alone, reference)


@pytest.mark.parametrize("outside", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_threads_and_inference_mode_change_no_bit(net, threads, outside, context):
    expected = [one(net, s) for s in (0, 1, 2)]
    before = torch.get_num_threads()
    torch.set_num_threads(outside)
    try:
        with context(), lockstep([0, 1, 2], threads=threads) as block:
            y = net(block.spread(X))
        assert torch.get_num_threads() == outside
        assert equal(one(net, 1, context=context), expected[1])
    finally:
        torch.set_num_threads(before)
    for i, row in enumerate(expected):
        assert equal([lanes_of(t)[i + 1] for t in y], row)


def test_autograd_changes_no_bit(net):
    with perturb():
        y = net(X)
    assert equal([t.detach() for t in y], one(net))


def test_other_lanes_are_no_input_of_a_lane(net):
    """The input of lane 2 is disturbed: the others keep every bit."""
    with torch.no_grad(), lockstep([0, 1, 2], threads=2) as block:
        plain = net(block.spread(X))
    x = LaneTensor([X, X.clone(), X * 3.7 + 1, X.clone()])
    with torch.no_grad(), lockstep([0, 1, 2], threads=2):
        disturbed = net(x)
    for p, d in zip(plain, disturbed, strict=True):
        assert [torch.equal(a, b) for a, b in zip(lanes_of(p), lanes_of(d), strict=True)] == [True, True, False, True]


def test_inputs_parameters_and_global_generators_are_untouched(net):
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    held = {k: v.clone() for k, v in net.state_dict().items()}
    x = X.clone()
    for threads in (1, 2):
        with torch.no_grad(), lockstep([0, 1], threads=threads) as block:
            net(block.spread(x))
    one(net, x=x)
    assert torch.equal(x, X) and all(torch.equal(v, held[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()


def test_the_memory_format_changes_only_what_the_stock_kernel_changes(net):
    last = X.contiguous(memory_format=torch.channels_last)
    for call in (
        lambda x: x * 0.3,
        lambda x: F.avg_pool2d(x, 2),
        lambda x: x.exp(),
        lambda x: x + 0.1,
        lambda x: F.batch_norm(x, torch.zeros(2), torch.ones(2)),
        lambda x: F.interpolate(x, size=(5, 5), mode="bilinear"),
        lambda x: F.softmax(x, 1),
    ):
        with perturb():
            a = call(X)
        with perturb():
            b = call(last)
        assert torch.equal(a, b) and b.stride() == call(last).stride()
    a, b = one(net.conv), one(net.conv, x=last)
    assert (a - b).abs().max() < 3e-6 and (a == b).float().mean() > 0.3  # the same noise on kernels of other low bits


@pytest.mark.parametrize("threads", [1, 2])
def test_state_is_restored_after_an_exception(threads):
    before, fused = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    for call in (lambda x: 1 / 0, lambda x: x.reshape(7), lambda x: x.bfloat16() * 0.3):
        with pytest.raises((ZeroDivisionError, RuntimeError, InputError)), lockstep([0, 1], threads=threads) as block:
            call(block.spread(X))
        assert torch.get_num_threads() == before and torch.backends.mha.get_fastpath_enabled() == fused
        assert type(X * 0.3) is torch.Tensor and torch.equal(X * 0.3, X * 0.3)


def test_seeds_samples_and_calls_differ_and_are_uncorrelated():
    x, factor = torch.rand(2, 40_000, generator=torch.Generator().manual_seed(0)) + 1

    def noise(seed, sample, calls):
        with perturb("random", seed, sample=sample):
            for _ in range(calls):
                y = x * factor
        return (y > x.double() * factor).double()

    table = torch.stack([noise(*place) for place in ((0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2), (1, 1, 2))])
    correlations = torch.corrcoef(table) - torch.eye(5, dtype=torch.float64)
    assert correlations.abs().max() < 5 / sqrt(x.numel())


def test_neighbouring_elements_are_uncorrelated():
    with torch.no_grad(), lockstep(range(200), reference=False) as block:
        y = torch.stack(lanes_of(block.spread(torch.rand(3, 50) + 1) @ torch.rand(50, 12))).double().flatten(1)
    c = torch.corrcoef(y.T) - torch.eye(36, dtype=torch.float64)
    assert c.abs().max() < 6 / sqrt(200) and c.sum().abs() < 36 * 6 / sqrt(200)


def test_call_numbers_do_not_depend_on_the_lanes(net):
    """A later call of the same block sees the same stream alone as beside others."""
    with torch.no_grad(), lockstep([3, 4]) as block:
        first = net(block.spread(X))
        second = net(block.spread(X))
    with torch.no_grad(), perturb(sample=4):
        net(X)
        alone = net(X)
    assert equal([lanes_of(t)[2] for t in second], alone) and not equal([lanes_of(t)[2] for t in first], alone)


def test_an_operator_without_the_input_is_perturbed_for_each_sample():
    """Weight standardisation, a positional table: no lane tensor goes in, one comes out."""
    weight, table = torch.randn(4, 3), torch.arange(7)
    with torch.no_grad(), lockstep([0, 1]):
        for y in (weight * 0.3, table / 7, weight - weight.mean(1, keepdim=True)):
            assert isinstance(y, LaneTensor) and not torch.equal(*y.lanes[1:])
        stock = lanes_of(weight * 0.3)[0]
    assert torch.equal(stock, weight * 0.3)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"samples": [-1]}, {"samples": [], "reference": False}, {"mode": "up"}])
def test_settings_that_cannot_be_are_refused(bad):
    with pytest.raises(InputError), lockstep(**{"samples": [0], **bad}):
        pass


def test_a_block_inside_a_block_is_refused():
    with perturb(), pytest.raises(InputError, match="around another"), perturb():
        pass
    with perturb():
        assert not torch.equal(X * 0.3, X * 0.3)  # the outer block is still there
