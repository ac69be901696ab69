"""Modules of the neighbouring layers: they stand where torch's stand, with torch's very parameters."""

import copy
import io

import pytest
import torch
from torch import nn

from nanops.errors import ConversionError, InputError
from nanops.functional.final import finalize
from nanops.functional.resize import nan_interpolate
from nanops.modules import normalization, reduction, resize
from nanops.modules.final import Finalize
from tests.nanops.images import compiled, gradients, image, same_bits


def learned(module: nn.Module) -> nn.Module:
    """Return a module whose parameters and buffers are not the initial ones."""
    with torch.no_grad():
        for n, t in enumerate([*module.parameters(), *module.buffers()]):
            if t.is_floating_point():
                t.copy_(image(*t.shape, seed=n).abs() + 0.5)
    return module


SIZES = {1: (5,), 2: (5, 4), 3: (5, 4, 3)}
# name -> (our class, torch's module, shape of its input)
CASES = {}
for dims, size in SIZES.items():
    for options in ({}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}):
        CASES[f"batch-{dims}-{options}"] = (
            getattr(normalization, f"NanBatchNorm{dims}d"),
            getattr(nn, f"BatchNorm{dims}d")(4, **options),
            (3, 4, *size),
        )
    for options in ({}, {"affine": True, "track_running_stats": True}):
        CASES[f"instance-{dims}-{options}"] = (
            getattr(normalization, f"NanInstanceNorm{dims}d"),
            getattr(nn, f"InstanceNorm{dims}d")(4, **options),
            (3, 4, *size),
        )
    CASES[f"adaptive-{dims}"] = (
        getattr(reduction, f"NanAdaptiveAvgPool{dims}d"),
        getattr(nn, f"AdaptiveAvgPool{dims}d")(2),
        (3, 4, *size),
    )
CASES |= {
    "batch-of-rows": (normalization.NanBatchNorm1d, nn.BatchNorm1d(4), (3, 4)),
    "instance-without-batch": (normalization.NanInstanceNorm2d, nn.InstanceNorm2d(4, affine=True), (4, 5, 6)),
    "group": (normalization.NanGroupNorm, nn.GroupNorm(2, 4), (3, 4, 5, 4)),
    "layer": (normalization.NanLayerNorm, nn.LayerNorm([5, 4], bias=False), (3, 4, 5, 4)),
    "upsample": (resize.NanUpsample, nn.Upsample(scale_factor=1.7, mode="bilinear"), (3, 4, 5, 4)),
    "upsample-corners": (resize.NanUpsample, nn.UpsamplingBilinear2d(scale_factor=2), (3, 4, 5, 4)),
    "upsample-nearest": (resize.NanUpsample, nn.UpsamplingNearest2d(size=7), (3, 4, 5, 4)),
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_without_nan_it_is_torchs_module_bit_for_bit(name, training):
    ours, module, shape = CASES[name]
    theirs = learned(copy.deepcopy(module)).train(training)
    twin = ours.from_torch(copy.deepcopy(theirs))
    for seed in range(2):
        x = image(*shape, seed=seed)
        assert same_bits(twin(x), theirs(x))
    assert all(same_bits(a, b) for a, b in zip(twin.state_dict().values(), theirs.state_dict().values(), strict=True))


@each_case
def test_from_torch_shares_parameters_and_buffers_and_keeps_the_training_flag(name):
    ours, module, _ = CASES[name]
    for training in (True, False):
        theirs = copy.deepcopy(module).train(training)
        twin = ours.from_torch(theirs)
        assert isinstance(twin, type(theirs).__mro__[0] if "upsample-" not in name else nn.Upsample)
        assert twin.training is training
        for get in (nn.Module.named_parameters, nn.Module.named_buffers):
            a, b = dict(get(twin)), dict(get(theirs))
            assert a.keys() == b.keys() and all(a[k] is b[k] for k in a)
        twin.train(not training)
        assert theirs.training is training
        again = ours.from_torch(twin)
        assert again.training is twin.training


@each_case
def test_state_dicts_are_interchangeable(name):
    ours, module, shape = CASES[name]
    theirs = learned(copy.deepcopy(module)).eval()
    twin = ours.from_torch(copy.deepcopy(module)).eval()
    twin.load_state_dict(theirs.state_dict())
    x = image(*shape)
    assert same_bits(twin(x), theirs(x))
    copy.deepcopy(module).load_state_dict(twin.state_dict())


@each_case
def test_a_nan_spoils_nothing_else(name):
    ours, module, shape = CASES[name]
    x = image(*shape, rate=0.15)
    for training in (False, True):
        twin = ours.from_torch(learned(copy.deepcopy(module)).train(training))
        y = twin(x)
        if "upsample" in name or "adaptive" in name:
            assert not y.isnan().all()
        else:
            assert torch.equal(y.isnan(), x.isnan())
        assert all(b.isfinite().all() for b in twin.buffers())


@each_case
def test_hooks_fire_and_copies_work(name):
    ours, module, shape = CASES[name]
    twin, seen = ours.from_torch(copy.deepcopy(module)), []
    twin.register_forward_hook(lambda m, args, y: seen.append(y))
    y = twin(image(*shape))
    assert len(seen) == 1 and seen[0] is y
    twin = copy.deepcopy(ours.from_torch(copy.deepcopy(module))).eval()
    file = io.BytesIO()
    torch.save(twin.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))


@each_case
def test_hooks_of_the_original_stay_there(name):
    ours, module, shape = CASES[name]
    theirs, seen = copy.deepcopy(module), []
    theirs.register_forward_hook(lambda *_: seen.append(1))
    ours.from_torch(theirs)(image(*shape))
    assert not seen


@pytest.mark.parametrize("name", ["batch-2-{}", "instance-2-{}", "group", "layer", "upsample", "adaptive-2"])
def test_one_graph_gives_the_same_numbers(name):
    ours, module, shape = CASES[name]
    twin = ours.from_torch(learned(copy.deepcopy(module)).eval())
    x = image(*shape, rate=0.15)
    torch.testing.assert_close(compiled(twin)(x), twin(x), equal_nan=True)


@pytest.mark.parametrize("name", ["batch-2-{}", "group", "layer"])
def test_weights_learn_from_images_with_nan(name):
    ours, module, shape = CASES[name]
    twin = ours.from_torch(learned(copy.deepcopy(module)))
    (found,) = gradients(twin, image(*shape, rate=0.3))
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in twin.parameters())


CONSTRUCTORS = {
    "batch": (lambda: normalization.NanBatchNorm2d(4, eps=0.1), lambda: nn.BatchNorm2d(4, eps=0.1)),
    "instance": (lambda: normalization.NanInstanceNorm3d(4), lambda: nn.InstanceNorm3d(4)),
    "group": (lambda: normalization.NanGroupNorm(2, 4), lambda: nn.GroupNorm(2, 4)),
    "layer": (lambda: normalization.NanLayerNorm(4), lambda: nn.LayerNorm(4)),
    "upsample": (lambda: resize.NanUpsample(scale_factor=2), lambda: nn.Upsample(scale_factor=2)),
    "adaptive": (lambda: reduction.NanAdaptiveAvgPool2d((1, None)), lambda: nn.AdaptiveAvgPool2d((1, None))),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_take_torchs_arguments_and_no_random_number(name):
    state = torch.get_rng_state()
    ours, theirs = (make() for make in CONSTRUCTORS[name])
    assert torch.equal(state, torch.get_rng_state())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.extra_repr().startswith(theirs.extra_repr())


def test_options_are_used_and_shown():
    x = image(2, 3, 5, 5, rate=0.3)
    up = resize.NanUpsample.from_torch(nn.Upsample(scale_factor=2, mode="bilinear"), threshold=0.9)
    assert same_bits(up(x), nan_interpolate(x, scale_factor=2, threshold=0.9))
    assert up.extra_repr() == "scale_factor=2.0, mode='bilinear', threshold=0.9"
    pool = reduction.NanAdaptiveAvgPool2d.from_torch(nn.AdaptiveAvgPool2d(1), policy="mean")
    torch.testing.assert_close(pool(x), x.nanmean((2, 3), keepdim=True))
    assert pool.extra_repr() == "output_size=1, policy='mean'"
    assert reduction.NanAdaptiveAvgPool2d(1).policy == "zero"


class Subclass(nn.GroupNorm):
    pass


REFUSED = {
    "another-module": (
        lambda: normalization.NanBatchNorm2d.from_torch(nn.BatchNorm1d(4)),
        "Expected a BatchNorm2d to make a NanBatchNorm2d of, got a BatchNorm1d.",
    ),
    "a-subclass": (
        lambda: normalization.NanGroupNorm.from_torch(Subclass(2, 4)),
        "Expected a GroupNorm to make a NanGroupNorm of, got a Subclass.",
    ),
    "bicubic": (
        lambda: resize.NanUpsample.from_torch(nn.Upsample(scale_factor=2, mode="bicubic")),
        "Expected mode to be one of nearest, nearest-exact, linear, bilinear, trilinear, got 'bicubic'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_module_that_cannot_be_converted_faithfully_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ConversionError) as error:
        call()
    assert str(error.value).startswith(message)


BAD_OPTIONS = {
    "threshold": lambda: resize.NanUpsample(size=2, threshold=0),
    "converted-threshold": lambda: resize.NanUpsample.from_torch(nn.Upsample(size=2), threshold=1.5),
    "mode": lambda: resize.NanUpsample(size=2, mode="area"),
    "pool": lambda: reduction.NanAdaptiveAvgPool1d(1, policy="keep"),
    "converted-pool": lambda: reduction.NanAdaptiveAvgPool1d.from_torch(nn.AdaptiveAvgPool1d(1), policy="keep"),
    "final": lambda: Finalize("mean"),
    "class": lambda: Finalize("background", background=-1),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_when_the_module_is_made(case):
    with pytest.raises(InputError, match=r"^Expected .*, got .*\.$"):
        BAD_OPTIONS[case]()


@pytest.mark.parametrize("policy", ["zero", "background", "keep"])
def test_finalize_stands_in_a_sequence_and_remembers_the_count(policy):
    x = image(2, 3, 4, 4, rate=0.2)
    head = Finalize(policy, background=1)
    assert head.count is None and not head.state_dict()
    y, count = finalize(x, policy, background=1)
    assert same_bits(nn.Sequential(head)(x), y) and torch.equal(head.count, count)
    assert same_bits(compiled(Finalize(policy, background=1))(x), y)


def test_finalize_says_what_it_does():
    assert repr(Finalize()) == "Finalize(policy='zero')"
    assert repr(Finalize("background", background=2)) == "Finalize(policy='background', background=2)"
