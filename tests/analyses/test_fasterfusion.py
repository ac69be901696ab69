"""Is the block the paper's, and do its fused and folded forms compute the same?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from analyses.compress.fasterfusion import fold, fuse
from analyses.compress.fasterfusion.counting import (
    block_macs_per_voxel,
    block_parameters,
    plain_macs_per_voxel,
    plain_parameters,
)
from analyses.models.fasterfusion import FORMS, Channels, FoldedBlock, FusedBlock, TrainingBlock
from mcaprobe.errors import InputError
from tests.analyses.fusion_blocks import apart, arrays, block
from tests.reference import fasterfusion_twin as twin

SHAPES = {  # dims, c_i, c_o, g, stride, size
    "plane": (2, 8, 8, 4, 1, (4, 5)),
    "volume": (3, 4, 4, 4, 1, (3, 2, 4)),
    "not divisible": (2, 7, 5, 3, 1, (4, 3)),
    "volume, not divisible": (3, 5, 7, 2, 1, (2, 3, 3)),
    "all spatial": (2, 3, 2, 1, 1, (4, 3)),
    "strided": (2, 6, 4, 2, 2, (4, 6)),
    "strided on some axes": (3, 4, 6, 4, (1, 2, 2), (2, 4, 4)),
    "strided, odd size": (2, 4, 4, 2, 2, (5, 3)),
    "one pixel": (2, 4, 4, 4, 1, (1, 1)),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_all_forms_are_the_block_written_as_loops(case: tuple) -> None:
    dims, inputs, outputs, ratio, stride, size = case
    made = block(dims, inputs, outputs, ratio, stride)
    x = torch.randn(2, inputs, *size, dtype=torch.float64)
    expected = torch.from_numpy(twin.block(x.numpy(), arrays(made), made.stride))
    for form in (made, fuse(made), fold(made)):
        assert form(x).shape == expected.shape
        assert apart(form(x), expected) <= 1e-12


@given(st.data(), st.sampled_from([2, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_fused_and_folded_are_the_training_form_in_eval_mode(
    data: st.DataObject, dims: int, inputs: int, outputs: int, seed: int
) -> None:
    ratio = data.draw(st.integers(1, min(inputs, outputs)), "ratio")
    stride = tuple(data.draw(st.lists(st.integers(1, 3), min_size=dims, max_size=dims), "stride"))
    size = data.draw(st.lists(st.integers(1, 6), min_size=dims, max_size=dims), "size")
    made = block(dims, inputs, outputs, ratio, stride, seed=seed)
    x = torch.randn(2, inputs, *size, dtype=torch.float64)
    single = block(dims, inputs, outputs, ratio, stride, torch.float32, seed)
    for change in (fuse, fold):
        assert apart(change(made)(x), made(x)) <= 1e-12
        assert apart(change(single)(x.float()), single(x.float())) <= 5e-6


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_of_320_channels_fused_and_folded_are_the_training_form(dims: int) -> None:
    x = torch.randn(1, 320, *(6,) * dims, dtype=torch.float64)
    for dtype, most in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        made = block(dims, 320, 320, dtype=dtype)
        for change in (fuse, fold):
            assert apart(change(made)(x.to(dtype)), made(x.to(dtype))) <= most


@pytest.mark.parametrize("ratio", [1, 3, 4])
def test_fused_weights_are_rounded_once(ratio: int) -> None:
    made = block(2, 9, 11, ratio, dtype=torch.float32)
    found = fuse(made)
    spatial, pointwise, bias = twin.fused(arrays(made))
    half = np.finfo(np.float32).eps / 2 * (1 + 1e-6)
    pairs = [(found.spatial, spatial)] + ([] if pointwise is None else [(found.pointwise, pointwise)])
    for conv, expected in pairs:
        weight = conv.weight.detach().double().numpy().reshape(expected.shape)
        assert np.all(np.abs(weight - expected) <= half * np.abs(expected) + 1e-15)
    parts = [conv.bias.detach().double().numpy() for conv, _ in pairs]
    assert np.all(np.abs(sum(parts) - bias) <= half * sum(np.abs(part) for part in parts) + 1e-15)


@torch.no_grad()
def test_a_fused_block_is_not_what_training_mode_computes() -> None:
    made = block(2, 16, 16)
    x = torch.randn(4, 16, 8, 8, dtype=torch.float64)
    fused = fuse(made)(x)
    assert apart(fused, made.train()(x)) > 0.01


def test_the_first_channels_are_spatial_and_come_first() -> None:
    made = block(2, 8, 8)
    assert (made.spatial.in_channels, made.spatial.out_channels) == (2, 4)
    assert (made.pointwise.in_channels, made.pointwise.out_channels) == (6, 12)
    x = torch.zeros(1, 8, 5, 5, dtype=torch.float64)
    reach = []
    for channel in (0, 1, 2, 7):
        y = x.clone()
        y[0, channel, 2, 2] = 1
        reach.append(int((made(y) != made(x)).any(1).sum()))
    assert reach == [9, 9, 1, 1]


def test_initial_weights_are_he_for_the_slope_and_the_norm_is_the_identity() -> None:
    torch.manual_seed(0)
    made = TrainingBlock(3, Channels.split(64, 128))
    for conv in (made.spatial, made.pointwise, made.last):
        fan = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan) ** 0.5, rel=0.05)
        assert not conv.bias.any()
    assert bool((made.norm.weight == 1).all()) and not made.norm.bias.any()
    assert made.act.negative_slope == 0.01


def test_each_stride_pools_behind_the_activation() -> None:
    made = block(3, 4, 4, 4, (1, 2, 2))
    order: list[str] = []
    for name in ("last", "act", "pool"):
        made.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name))
    assert made(torch.randn(1, 4, 2, 4, 4, dtype=torch.float64)).shape == (1, 4, 2, 2, 2)
    assert order == ["last", "act", "pool"]
    assert made.pool.kernel_size == made.pool.stride == (1, 2, 2)


@pytest.mark.parametrize(("form", "expected"), [("training", 667_840), ("fused", 768_640), ("folded", 666_560)])
def test_a_block_of_320_channels_has_the_parameters_of_the_specification(form: str, expected: int) -> None:
    assert block_parameters(3, Channels.split(320, 320), form) == expected
    assert plain_parameters(3, 320, 320) == 2_765_760


@given(st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_multiply_accumulates_per_voxel_follow_the_formulas(quarter: int, other: int) -> None:
    i, o = 4 * quarter, 4 * other
    channels = Channels.split(i, o)
    assert plain_macs_per_voxel(3, i, o) == 27 * i * o
    assert block_macs_per_voxel(3, channels, "training") == 4.5 * i * o + 2 * o**2
    assert block_macs_per_voxel(3, channels, "folded") == 4.5 * i * o + 2 * o**2
    assert block_macs_per_voxel(3, channels, "fused") == 7.5 * i * o


@given(st.sampled_from([2, 3]), st.integers(1, 50), st.integers(1, 50), st.data())
@settings(max_examples=25, deadline=None)
def test_parameters_follow_from_the_channels(dims: int, i: int, o: int, data: st.DataObject) -> None:
    g = data.draw(st.integers(1, min(i, o)))
    p, q = i // g, 2 * (o // g)
    branches = 3**dims * p * q + q + (i - p) * (2 * o - q) + (2 * o - q)
    channels = Channels.split(i, o, g)
    assert block_parameters(dims, channels, "training") == branches + 4 * o + 2 * o * o + o
    assert block_parameters(dims, channels, "folded") == branches + 2 * o * o + o
    assert block_parameters(dims, channels, "fused") == 3**dims * p * o + (i - p) * o + (2 if i > p else 1) * o


@pytest.mark.parametrize("change", [fuse, fold])
def test_the_original_stays_and_the_random_state_too(change: object) -> None:
    made = block(2, 8, 8)
    before, state = arrays(made), torch.get_rng_state()
    before = {name: value.copy() for name, value in before.items()}
    other = change(made)  # type: ignore[operator]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(value, before[name]) for name, value in arrays(made).items())
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    assert all(np.array_equal(value, before[name]) for name, value in arrays(made).items())


def test_a_form_has_mode_dtype_and_nan_threshold_of_its_block() -> None:
    made = block(2, 8, 8, dtype=torch.bfloat16)
    made.nan_threshold = 0.25
    for other in (fuse(made), fold(made)):
        assert not other.training
        assert {value.dtype for value in other.parameters()} == {torch.bfloat16}
        assert other.nan_threshold == 0.25
    assert isinstance(fuse(made), FusedBlock) and isinstance(fold(made), FoldedBlock)


def with_norm(norm: nn.Module) -> nn.Module:
    made = block(2, 8, 8)
    made.norm = norm
    return nn.ModuleDict({"deep": nn.Sequential(nn.Identity(), made)})


NORMS = {
    "instance": (nn.InstanceNorm2d(16, affine=True).eval(), "got InstanceNorm2d, which cannot be fused"),
    "group": (nn.GroupNorm(4, 16).eval(), "got GroupNorm, which cannot be fused"),
    "training": (nn.BatchNorm2d(16), "got one in training mode"),
    "no statistics": (nn.BatchNorm2d(16, track_running_stats=False).eval(), "got one without running statistics"),
}


@pytest.mark.parametrize("change", [fuse, fold])
@pytest.mark.parametrize(("norm", "sentence"), NORMS.values(), ids=NORMS)
def test_a_norm_that_cannot_be_fused_is_named(change: object, norm: nn.Module, sentence: str) -> None:
    with pytest.raises(InputError, match=f"in layer 'deep.1.norm', {sentence}"):
        change(with_norm(norm.double()))  # type: ignore[operator]


@pytest.mark.parametrize("change", [fuse, fold])
def test_without_a_block_in_training_form_there_is_nothing_to_fuse(change: object) -> None:
    for network in (nn.Conv2d(1, 1, 1), fuse(block(2, 8, 8))):
        with pytest.raises(InputError, match="Expected a network with FasterFusion blocks in training form"):
            change(network)  # type: ignore[operator]


@torch.no_grad()
def test_a_norm_without_gamma_and_beta_is_fused() -> None:
    made = block(2, 8, 8)
    stock = made.norm
    made.norm = nn.BatchNorm2d(16, affine=False).double().eval()
    made.norm.running_mean, made.norm.running_var = stock.running_mean, stock.running_var
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    assert apart(fuse(made)(x), made(x)) <= 1e-12


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Channels.split(8, 3, 4), "Expected a ratio from 1 to 3"),
        (lambda: Channels.split(8, 8, 0), "got 0"),
        (lambda: Channels.split(8, 8, 2.5), "got 2.5"),  # type: ignore[arg-type]
        (lambda: Channels(8, 8, 8, 4), "all of both or some of both, got 8 and 4"),
        (lambda: Channels(8, 8, 0, 4), "got 0 and 4"),
        (lambda: FORMS["fused"](1, Channels.split(8, 8)), "Expected 2 or 3 dims, got 1"),
        (lambda: FORMS["training"](2, Channels.split(8, 8), (2, 2, 2)), "Expected a stride"),
        (lambda: FORMS["training"](2, Channels.split(8, 8), 0), "Expected a stride"),
        (lambda: FORMS["folded"](2, Channels(8, 8, 2, None)), "Expected the spatial outputs"),
        (lambda: block(2, 8, 8)(torch.zeros(8, 4, 4)), r"Expected x of shape \(N, 8, H, W\), got \(8, 4, 4\)"),
        (lambda: block(3, 8, 8)(torch.zeros(1, 7, 4, 4, 4)), r"Expected x of shape \(N, 8, D, H, W\)"),
        (lambda: block_parameters(3, Channels.split(8, 8), "fuse"), "Expected a form of training, folded, fused"),
    ],
    ids=["ratio", "no ratio", "broken", "half", "none", "dims", "axes", "stride", "q", "batch", "channels", "form"],
)
def test_what_makes_no_sense_is_named(make: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()  # type: ignore[operator]
