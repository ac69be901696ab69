"""What a model may do with tensors that are several runs at once, and what it is refused with a clear sentence."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe import lockstep, perturb
from mcaprobe.errors import InputError
from mcaprobe.lanes import LaneTensor, LockstepError, join_lanes, lane_count, lanes_of, pick_lane

pytestmark = pytest.mark.usefixtures("each_route")
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CONTEXTS = [torch.no_grad, torch.inference_mode]


def in_lanes(function, x=X, threads=1, context=torch.no_grad):
    """Return function(x) in lock-step, after checking each sample against the run of that sample alone."""
    with context(), lockstep([0, 1], threads=threads) as block:
        y = function(block.spread(x.clone()))
    for s in (0, 1):
        with context(), perturb(sample=s):
            alone = function(x.clone())
        lanes = [lanes_of(t)[s + 1] if isinstance(t, LaneTensor) else t for t in _leaves(y)]
        assert all(torch.equal(a, b) for a, b in zip(lanes, _leaves(alone), strict=True))
    return y


def _leaves(tree):
    return [t for t in torch.utils._pytree.tree_flatten(tree)[0] if isinstance(t, torch.Tensor)]


def differ(y: torch.Tensor) -> bool:
    return not torch.equal(*lanes_of(y)[1:])


def factories(x):
    noisy = x * 0.3
    made = [
        torch.zeros(2, 3, 8, 8),
        torch.zeros_like(X),
        x.new_zeros(2, 3, 8, 8),
        X.new_empty(2, 3, 8, 8),
        X.clone(),
        torch.empty_like(X),
        torch.full((2, 3, 8, 8), 2.0),
        torch.ones_like(x),
        X.to(torch.float32, copy=True),
    ]
    for buffer in made:
        buffer[...] = noisy
    scalar = torch.tensor([0.0, 1.0])
    scalar[0] = noisy.sum()
    return [*made, scalar]


def slices(x):
    y = torch.zeros(2, 6, 8, 8)
    y[:, ::2] = x * 0.3
    y[:, 1::2, 2:4].add_(x[:, :, 2:4] * 0.7)
    y.view(2, -1)[:, 5] *= 0.1
    y.transpose(2, 3)[0].copy_(y[1] * 1.1)
    y[y > 1] = 0.5
    y[:, [0, 2]] = y[:, [1, 3]]
    y.masked_fill_(y < -1, 0.25)
    return y, x


def indexing(x):
    noisy = (x * 0.3).flatten(2)
    index = noisy.argmax(-1, keepdim=True)
    order = noisy.argsort(-1)
    return (
        noisy.gather(-1, index),
        noisy.gather(-1, order),
        X.flatten(2).gather(-1, index),
        noisy[:, index[0, :, 0] % 3],
    )


def in_place(x):
    y = F.conv2d(x, torch.ones(4, 3, 3, 3) * 0.3)
    y = F.relu(y, inplace=True)
    y[:, 1:2] *= 0.3
    F.elu(y, inplace=True)
    y.add_(0.1).mul_(y).clamp_(0, 3)
    return y, torch.sigmoid_(y.clone()), F.silu(y.clone(), inplace=True)


def out_arguments(x):
    a, b, c = torch.empty(2, 3, 8, 8), torch.empty_like(x), torch.empty(2, 3, 8, 8)
    torch.add(x, 0.1, out=a)
    torch.mul(x, 0.3, out=b)
    torch.maximum(a, b, out=c)
    return a, b, c


class Structured(nn.Module):
    def forward(self, x):
        y = x * 0.3
        return {
            "y": y,
            "pair": (y + 0.1, [y.amax(1), None]),
            "number": 3,
            "name": "a",
            "nothing": None,
            "flag": y.shape[0] > 1,
        }


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "function",
    [factories, slices, indexing, in_place, out_arguments, Structured()],
    ids=lambda f: getattr(f, "__name__", "structured"),
)
def test_each_lane_is_a_run_of_its_own(function, threads, context):
    y = in_lanes(function, threads=threads, context=context)
    assert any(isinstance(t, LaneTensor) and differ(t) for t in _leaves(y))


def test_outputs_keep_their_structure():
    y = in_lanes(Structured())
    assert (
        y["number"] == 3 and y["name"] == "a" and y["nothing"] is None and y["flag"] is True and y["pair"][1][1] is None
    )
    assert isinstance(y["pair"][0], LaneTensor) and y["pair"][0].shape == (2, 3, 8, 8)


def test_a_lane_tensor_looks_like_the_tensor_of_one_run():
    with torch.no_grad(), lockstep([0, 1]) as block:
        y = block.spread(X).permute(0, 2, 3, 1)[:, ::2] * 0.3
        assert (y.shape, y.dtype, y.device, y.dim(), len(y)) == ((2, 4, 8, 3), torch.float32, X.device, 4, 2)
        assert (
            y.numel() == 192
            and y.stride() == (X.permute(0, 2, 3, 1)[:, ::2] * 0.3).stride()
            and "3 lanes" in repr(y)
            and y.element_size() == 4
        )
        assert [row.shape for row in y] == [(4, 8, 3)] * 2
    assert len(lanes_of(y)) == 3 and lanes_of(X) == (X,)


def test_writes_of_one_lane_are_not_seen_by_another_nor_by_the_input():
    with torch.no_grad(), lockstep([0, 1]) as block:
        x = block.spread(X)
        x[0] = 0.0
        x *= 1.1
    assert X[0].any() and differ(x)


# Numbers that the model asks for.


def test_samples_that_agree_give_a_number():
    with torch.no_grad(), lockstep([0, 1]) as block:
        x = block.spread(X)
        assert x[0, 0, 0, 0].item() == X[0, 0, 0, 0].item() and bool((x * 0.3).sum() < 1e9)
        assert int((x * 0.3 > 1e3).sum()) == 0 and torch.equal(x, X)
        if (x * 0.3).abs().max() > 1e6:
            raise AssertionError


@pytest.mark.parametrize(
    "ask",
    [
        lambda y: (y * 0.3)[0, 0, 0, 0].item(),
        lambda y: float((y * 0.3).sum()),
        lambda y: bool(((y * 0.3) * 1e7).long().sum() % 2),
        lambda y: ((y * 0.3) * 1e8).frac().gt(0.5).nonzero(),
        lambda y: y[((y * 0.3) * 1e8).frac() > 0.5],
        lambda y: (y * 0.3).unique()[: int((y * 0.3).sum() * 1e7)],
        lambda y: torch.equal((y * 0.3), (y * 0.3)) or 1 / 0,
    ],
)
def test_samples_that_disagree_are_refused(ask):
    with torch.no_grad(), lockstep([0, 1, 2, 3, 4, 5]) as block, pytest.raises(LockstepError, match="disagree on"):
        ask(block.spread(X))


@pytest.mark.parametrize(
    "leave",
    [lambda y: y.numpy(), lambda y: y.tolist(), np.asarray, np.array],
    ids=["numpy", "tolist", "asarray", "array"],
)
def test_leaving_torch_is_refused(leave):
    with torch.no_grad(), lockstep([0, 1]) as block, pytest.raises(LockstepError, match="numpy or Python lists"):
        leave(block.spread(X) * 0.3)


def test_writing_into_a_tensor_from_outside_is_refused():
    outside = torch.zeros(2, 3, 8, 8)
    for write in (
        lambda x: outside.copy_(x * 0.3),
        lambda x: outside.mul_(0.3),
        lambda x: outside.__setitem__(0, x[0] * 0.3),
    ):
        with torch.no_grad(), lockstep([0, 1]) as block, pytest.raises(LockstepError, match="outside the run"):
            write(block.spread(X))
    assert not outside.any()


def test_training_statistics_are_refused_beside_others_and_updated_once_alone():
    norm = nn.BatchNorm2d(3)
    with torch.no_grad(), lockstep([0, 1]) as block, pytest.raises(LockstepError, match="training mode"):
        norm(block.spread(X))
    expected = copy.deepcopy(nn.BatchNorm2d(3))
    expected(X)
    fresh = nn.BatchNorm2d(3)
    with torch.no_grad(), perturb():
        fresh(X)
    assert torch.allclose(fresh.running_mean, expected.running_mean) and fresh.num_batches_tracked == 1
    assert isinstance(in_lanes(nn.InstanceNorm2d(3)), LaneTensor)


def test_an_out_of_another_shape_is_refused_and_resized_alone():
    for call in (torch.add, torch.maximum):
        with torch.no_grad(), lockstep([0, 1]) as block, pytest.raises(LockstepError, match="out= of shape"):
            call(block.spread(X), X, out=torch.empty(0))
    y = torch.empty(0)
    with torch.no_grad(), perturb():
        torch.add(X, X * 0.3, out=y)
    assert y.shape == X.shape


def test_tensors_of_another_block_are_refused():
    with torch.no_grad(), lockstep([0, 1]) as block:
        y = block.spread(X) * 0.3
    for samples in ([0], [0, 1]):
        with torch.no_grad(), lockstep(samples, reference=False), pytest.raises(LockstepError, match="lanes"):
            y * 2
    with pytest.raises(LockstepError):
        LaneTensor([y, y])


# Copies, random numbers, types.


def test_deepcopy_inside_a_block():
    norm, conv = nn.BatchNorm2d(3).eval(), nn.Conv2d(3, 4, 3)
    norm.running_mean.copy_(torch.randn(3))
    with torch.no_grad(), lockstep([0, 1]) as block:
        x = block.spread(X)
        noisy = x * 0.3
        again = copy.deepcopy(noisy)
        y = copy.deepcopy(conv)(copy.deepcopy(norm)(x))
    assert all(
        torch.equal(a, b) and a.data_ptr() != b.data_ptr()
        for a, b in zip(lanes_of(noisy), lanes_of(again), strict=True)
    )
    with torch.no_grad():
        stock = conv(norm(X))
    assert (lanes_of(y)[0] - stock).abs().max() < 1e-5 and differ(y)


@pytest.mark.parametrize("context", CONTEXTS)
def test_dropout_draws_the_same_mask_in_each_lane(context):
    torch.manual_seed(5)
    with context(), lockstep([0, 1], threads=2) as block:
        y = F.dropout(block.spread(X) * 0.3, 0.4, True)
        z = torch.randn_like(y)
        u = torch.rand(3)
        after = torch.get_rng_state()
    torch.manual_seed(5)
    with context():
        stock, stock_z, stock_u = F.dropout(X * 0.3, 0.4, True), torch.randn_like(X), torch.rand(3)
    assert all(torch.equal(lane == 0, stock == 0) for lane in lanes_of(y))
    assert all(torch.equal(lane, stock_z) for lane in lanes_of(z)) and all(
        torch.equal(lane, stock_u) for lane in lanes_of(u)
    )
    assert torch.equal(after, torch.get_rng_state())


def test_dropout_scales_with_a_rounding_of_its_own_in_every_context():
    results = []
    for context in CONTEXTS:
        torch.manual_seed(5)
        with context(), perturb():
            results.append(F.dropout(X, 0.3, True))
    torch.manual_seed(5)
    stock = F.dropout(X, 0.3, True)
    assert torch.equal(*results) and not torch.equal(results[0], stock) and torch.equal(results[0] == 0, stock == 0)


def test_a_generator_handed_in_draws_the_same_in_each_lane():
    g = torch.Generator().manual_seed(1)
    with torch.no_grad(), lockstep([0, 1]) as block:
        y = torch.empty_like(block.spread(X)).normal_(generator=g)
    expected = torch.empty_like(X).normal_(generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(lane, expected) for lane in lanes_of(y))


def test_integers_booleans_and_empty_tensors():
    with torch.no_grad(), lockstep([0, 1]) as block:
        x = block.spread(X)
        whole = (x * 10).int()
        assert whole.dtype == torch.int32 and (whole + 1).dtype == torch.int32 and (whole > 3).dtype == torch.bool
        assert (whole / 3).dtype == torch.float32 and whole.sum().dtype == torch.int64
        none = x[:0]
        for y in (
            none * 0.3,
            none.exp(),
            F.relu(none),
            none.mean((2, 3)),
            F.conv2d(none, torch.randn(4, 3, 3, 3)),
            F.softmax(none, 1),
            none.sum(),
            none.cumsum(1),
            F.avg_pool2d(none, 2),
            none @ torch.ones(8, 2),
            F.layer_norm(none, [8]),
            F.interpolate(none, size=(4, 4), mode="bilinear"),
            none.prod(),
        ):
            assert isinstance(y, LaneTensor) and all(lane.shape == y.shape for lane in lanes_of(y))


def test_tensors_without_dimensions():
    with torch.no_grad(), lockstep([0, 1]) as block:
        y = block.spread(X).sum() * 0.3
        for z in (
            y.exp(),
            y.sum(),
            y.sum(0),
            y.mean(0),
            y.softmax(0),
            y.log_softmax(0),
            y.cumsum(0),
            y.cumprod(0),
            y.prod(),
            y + X.sum(),
            y.sigmoid(),
            y**2.5,
            y.var(unbiased=False),
            torch.lerp(y, y + 1, 0.3),
        ):
            assert z.shape == () and isinstance(z, LaneTensor)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda x: x.bfloat16() * 0.3, "bfloat16"),
        (lambda x: x.half() @ x.half(), "float16"),
        (lambda x: torch.complex(x, x) * 2, "complex64"),
        (lambda x: torch.view_as_complex(X.view(2, 3, 8, 4, 2)).abs(), "complex64"),
    ],
)
def test_other_formats_are_refused(call, name):
    with torch.no_grad(), perturb(), pytest.raises(InputError, match=f"Expected float32 or float64 .* got {name}"):
        call(X)


def test_autocast_is_refused():
    with (
        torch.no_grad(),
        perturb(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(InputError, match="bfloat16"),
    ):
        F.linear(X, torch.randn(4, 8))


def test_moving_between_formats_is_allowed():
    y = in_lanes(lambda x: ((x.double() * 0.3).float(), (x * 3).to(torch.int64), x.double() + 0.1, x.bool()))
    assert (
        [t.dtype for t in y] == [torch.float32, torch.int64, torch.float64, torch.bool]
        and differ(y[0])
        and differ(y[2])
    )


def test_outside_a_block_lanes_run_stock_operators():
    with torch.no_grad(), lockstep([0, 1]) as block:
        y = block.spread(X) * 0.3
    z = (y + 0.5).flatten(1).sum(1)
    assert all(torch.equal(a, (b + 0.5).flatten(1).sum(1)) for a, b in zip(lanes_of(z), lanes_of(y), strict=True))


def test_joining_and_picking():
    a, b = torch.ones(2), torch.zeros(2)
    tree = join_lanes(
        [{"t": a, "n": 2, "s": "x", "nan": float("nan")}, {"t": b, "n": 2, "s": "x", "nan": float("nan")}], True
    )
    assert (
        lane_count(tree) == 2 and lane_count({"a": [1, a]}) is None and pick_lane(tree, 1)["t"] is b and tree["n"] == 2
    )
    for other in ({"t": b, "n": 3}, {"t": torch.ones(3), "n": 2}, {"t": b.double(), "n": 2}):
        with pytest.raises(LockstepError):
            join_lanes([{"t": a, "n": 2}, other], True)
