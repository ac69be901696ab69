"""A converted model computes what one written in the NaN operators computes, however its calls are spelt."""

import doctest

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import nanops
from nanops import InputError
from nanops.functional.convolution import nan_conv2d
from nanops.functional.normalization import nan_group_norm, nan_instance_norm, nan_layer_norm
from nanops.functional.pooling import aggressive_max_pool2d, multi_max_pool2d
from nanops.functional.resize import nan_interpolate
from nanops.functional.transposed import nan_conv_transpose2d
from nanops.functional.unpooling import conservative_max_unpool2d
from nanops.modules import Finalize, NanAdaptiveAvgPool2d, NanConv2d, NanInstanceNorm2d, NanUpsample
from nanops.tolerance import EXACT, Tolerance
from tests.nanops.images import same_bits
from tests.nanops.nets import Functional, Modules, Tail, Torch, by_hand, image, seeded, untied

POOLINGS = ["conservative", "aggressive", "hybrid", None]
STYLES = [Modules, Functional, Torch]


def tied(x):
    """Return what Tail makes of x before its tail."""
    return conservative_max_unpool2d(*multi_max_pool2d(x, 2), 2)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("threshold", [0.4, 1.0])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_conversion_equals_the_network_written_in_nan_operators(pooling, threshold, style):
    model = seeded(style())
    converted = nanops.convert(model, pooling, threshold, final="keep")
    expected = by_hand(model, image(), pooling, threshold)
    assert same_bits(converted(image()), expected)
    if pooling and threshold < 1:
        assert 0 < expected.isnan().sum() < expected.numel()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("style", STYLES)
def test_without_ties_a_conversion_has_the_bits_of_the_model(style, pooling):
    model = seeded(style())
    with torch.no_grad():
        model.norm.bias.fill_(20)  # nothing is cut off by the ReLU, so that nothing ties
    assert same_bits(nanops.convert(model, pooling)(untied()), model(untied()))


@pytest.mark.parametrize("pooling", ["conservative", "aggressive"])
def test_the_final_policy_gives_zero_for_nan(pooling):
    model = seeded(Modules())
    expected = by_hand(model, image(), pooling)
    assert same_bits(nanops.convert(model, pooling)(image()), expected.nan_to_num(nan=0.0))


def test_every_sample_is_converted_alone():
    converted = nanops.convert(seeded(Modules()))
    x = image(3)
    torch.testing.assert_close(converted(x)[1:2], converted(x[1:2]))


def test_a_pool_whose_indices_nobody_wants_ignores_nan():
    x = image()
    x[0, 0, 0, 0], x[0, 0, 4:6, 4:6] = torch.nan, torch.nan
    model = nn.Sequential(nn.MaxPool2d(2), nn.Identity())
    expected, _ = aggressive_max_pool2d(x, 2, max_ties=4, tolerance=EXACT)
    for pooling in ("conservative", None):
        y = nanops.convert(model, pooling, final="keep")(x)
        assert same_bits(y, expected)
        assert y.isnan().sum() == 1 and y[0, 0, 0, 0] == 0


@pytest.mark.parametrize("pooling", ["aggressive", None])
def test_an_unpool_of_torch_itself_copies_nan(pooling):
    class Internal(nn.Module):
        def forward(self, x):
            y, indices = F.max_pool2d(x, 2, return_indices=True)
            return torch._C._nn.max_unpool2d(y, indices, (16, 16)) + torch.ops.aten.max_unpool2d(y, indices, [16, 16])

    y, indices = aggressive_max_pool2d(untied(), 2, max_ties=1, tolerance=Tolerance("absolute", 0.5 if pooling else 0))
    options = {"tolerance": Tolerance("absolute", 0.5), "final": "keep"}
    expected = F.max_unpool2d(y, indices, 2)
    assert same_bits(nanops.convert(Internal(), pooling, **options)(untied()), expected + expected)


def test_an_aggressive_pool_needs_no_indices():
    y = nanops.convert(nn.MaxPool2d(2), "aggressive", final="keep", max_ties=3)(image())
    assert same_bits(y, aggressive_max_pool2d(image(), 2, max_ties=3)[0]) and y.isnan().any()


OTHERS = {
    "transposed": (nn.ConvTranspose2d(1, 2, 3, stride=2), nan_conv_transpose2d, ("weight", "bias", "stride")),
    "strided": (nn.Conv2d(1, 4, 3, stride=2), nan_conv2d, ("weight", "bias", "stride")),
    "dilated": (nn.Conv2d(1, 4, 3, dilation=2), nan_conv2d, ("weight", "bias", "stride", "padding", "dilation")),
    "group norm": (nn.GroupNorm(1, 1), nan_group_norm, ("num_groups", "weight", "bias", "eps")),
    "layer norm": (nn.LayerNorm(16), nan_layer_norm, ("normalized_shape", "weight", "bias", "eps")),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_layers_are_their_nan_operators(kind):
    layer, operator, names = OTHERS[kind]
    model = seeded(Tail(lambda m, y: m.layer(y), layer=layer))
    expected = operator(tied(image()), *(getattr(layer, name) for name in names))
    assert same_bits(nanops.convert(model, final="keep")(image()), expected)


def test_an_instance_norm_takes_its_statistics_from_the_valid_values():
    model = Tail(lambda m, y: m.layer(y), layer=nn.InstanceNorm2d(1))
    assert same_bits(nanops.convert(model, final="keep")(image()), nan_instance_norm(tied(image())))


@pytest.mark.parametrize("call", [lambda y: F.interpolate(y, scale_factor=2.0, mode="bilinear"),
                                  lambda y: nn.Upsample(scale_factor=2.0, mode="bilinear")(y)])  # fmt: skip
def test_resizing_leaves_out_the_weights_of_nan(call):
    converted = nanops.convert(Tail(lambda m, y: call(y)), threshold=0.9, final="keep")
    expected = nan_interpolate(tied(image()), scale_factor=2.0, mode="bilinear", threshold=0.9)
    assert same_bits(converted(image()), expected)


def test_training_takes_statistics_from_valid_values_and_shares_them():
    model = Tail(lambda m, y: m.norm(y), norm=nn.BatchNorm2d(1)).train()
    converted = nanops.convert(model, final="keep")
    y = converted(image()).detach()
    values = y[~y.isnan()]
    assert abs(float(values.mean())) < 1e-5 and model.norm.num_batches_tracked == 1
    assert same_bits(model.norm.running_mean, 0.1 * tied(image()).nanmean().reshape(1))


def test_one_pool_may_serve_two_unpools_and_a_layer_two_places():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.again = self.conv
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x):
            y, i = self.pool(x)
            return self.again(self.unpool(self.conv(y), i)) + self.unpool(y, i.clone().contiguous())

    model = seeded(Twice())
    converted = nanops.convert(model, final="keep")
    assert converted.conv is converted.again
    y, ties = multi_max_pool2d(image(), 2)
    z = nan_conv2d(y, model.conv.weight, model.conv.bias, padding=1)
    expected = nan_conv2d(conservative_max_unpool2d(z, ties, 2), model.conv.weight, model.conv.bias, padding=1)
    assert same_bits(converted(image()), expected + conservative_max_unpool2d(y, ties, 2))


def test_layers_in_containers_and_closures_are_converted():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            conv = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)]
            self.steps = nn.ModuleDict({"a": nn.ModuleList([conv[0]]), "b": nn.Sequential(nn.Sequential(*conv[1:3]))})
            self.last = parametrizations.weight_norm(conv[3])
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
            self.closure = lambda x: self.pool(x)  # holds the original's pool, in the copy as well

        def forward(self, x):
            y = self.unpool(*self.closure(x))
            return self.last(self.steps["b"][0][:2](self.steps["a"][0](y)))

    model = seeded(Nested())
    layers = [model.steps["a"][0], *model.steps["b"][0], model.last]
    y = tied(image())
    for layer in layers:
        y = nan_conv2d(y, layer.weight, layer.bias, padding=1)
    assert same_bits(nanops.convert(model, final="keep")(image()), y)


def test_operators_of_ours_inside_a_model_stay_as_they_are():
    w = torch.ones(1, 1, 3, 3)
    model = Tail(lambda m, y: nan_conv2d(y, w, threshold=1.0))
    y = nanops.convert(model, threshold=0.2, final="keep")(image())
    assert same_bits(y, nan_conv2d(tied(image()), w, threshold=1.0))


@pytest.mark.parametrize("layer", [NanInstanceNorm2d(1), NanUpsample(scale_factor=2.0, mode="bilinear"),
                                   NanAdaptiveAvgPool2d(3, policy="mean"), Finalize("zero"),
                                   NanConv2d(1, 2, 3, threshold=0.9)], ids=lambda m: type(m).__name__)  # fmt: skip
def test_modules_of_ours_stay_as_they_are(layer):
    converted = nanops.convert(Tail(lambda m, y: m.layer(y), layer=layer), threshold=0.2, final="keep")
    with nanops.count_skipped(converted) as skipped:
        y = converted(image())
    assert same_bits(y, layer(tied(image()))) and skipped.replaced == []


def test_draws_come_from_the_generator_that_was_given():
    model = seeded(Modules())

    def converted(seed):
        g = torch.Generator().manual_seed(seed)
        return nanops.convert(model, fill="max_normal", generator=g, sigma=0.1)

    before = torch.get_rng_state()
    first = converted(5)
    y = first(image())
    assert same_bits(y, converted(5)(image())) and not same_bits(y, converted(6)(image()))
    assert not same_bits(y, first(image())) and torch.equal(before, torch.get_rng_state())


def test_the_tolerance_reaches_the_pools():
    x = untied().abs() + 1
    model = seeded(Modules())
    loose = nanops.convert(model, tolerance=Tolerance("absolute", 1e9), final="keep")(x)
    assert loose.isnan().any() and not nanops.convert(model, final="keep")(x).isnan().all()


def test_gradients_reach_the_shared_parameters():
    model = seeded(Modules())
    converted = nanops.convert(model)
    converted(image()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    assert all(float(p.grad.abs().sum()) > 0 for p in (model.conv1.weight, model.middle.weight, model.conv2.weight))


def test_inference_mode_and_channels_last_change_nothing():
    converted = nanops.convert(seeded(Modules()))
    expected = converted(image())
    with torch.inference_mode():
        assert same_bits(converted(image()), expected)
    torch.testing.assert_close(converted(image().contiguous(memory_format=torch.channels_last)), expected)


SELECTED = {
    "one layer": (["middle", "pool", "unpool"], {"middle"}),
    "a glob": ("*ool", set()),
    "all": ("*", {"conv1", "middle", "conv2"}),
    "two globs": (["pool", "unpool", "conv?"], {"conv1", "conv2"}),
}


@pytest.mark.parametrize("case", SELECTED)
def test_a_convolution_that_is_not_selected_gets_zero_for_nan(case):
    layers, chosen = SELECTED[case]
    model = seeded(Modules())

    def conv(name, x):
        layer = getattr(model, name)
        if name in chosen:
            return nan_conv2d(x, layer.weight, layer.bias, padding=1)
        return F.conv2d(x.nan_to_num(nan=0.0), layer.weight, layer.bias, padding=1)

    y, ties = multi_max_pool2d(torch.relu(model.norm(conv("conv1", image()))), 2)
    expected = conv("conv2", conservative_max_unpool2d(conv("middle", y), ties, 2)).nan_to_num(nan=0.0)
    assert same_bits(nanops.convert(model, layers=layers)(image()), expected)


def test_a_selected_module_brings_what_is_inside_it():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 3)), nn.Conv2d(1, 1, 3))
    x = image()
    x[:, :, 8] = torch.nan
    converted = nanops.convert(model, layers="0", threshold=0.1, final="keep")
    assert converted[0](x).isnan().any()
    with pytest.raises(nanops.ConversionError, match="layer '1'"):
        converted(x)


def test_the_last_override_decides():
    model = seeded(Modules())
    overrides = {"conv*": {"threshold": 1.0, "fill": "mean"}, "conv2": {"threshold": 0.2}}
    converted = nanops.convert(model, threshold=0.5, overrides=overrides, final="keep")
    y, ties = multi_max_pool2d(torch.relu(model.norm(model.conv1(image()))), 2)
    y = nan_conv2d(y, model.middle.weight, model.middle.bias, padding=1, threshold=0.5)
    y = conservative_max_unpool2d(y, ties, 2)
    expected = nan_conv2d(y, model.conv2.weight, model.conv2.bias, padding=1, threshold=0.2)
    assert same_bits(converted(image()), expected)


def test_pools_are_overridden_too():
    overrides = {"pool": {"max_ties": 2, "tolerance": Tolerance("ulps", 0)}}
    converted = nanops.convert(seeded(Modules()), "hybrid", overrides=overrides, final="keep")
    assert same_bits(converted(image()), by_hand(seeded(Modules()), image(), "hybrid", max_ties=2))


WRONG = {
    "a glob of layers": ({"layers": "conf1"}, "glob that matches a layer, got 'conf1'; did you mean 'conv1'"),
    "a glob of overrides": ({"overrides": {"midle": {"threshold": 1.0}}}, "did you mean 'middle'"),
    "an override's name": ({"overrides": {"*": {"treshold": 1.0}}}, "did you mean 'threshold'"),
    "an override's value": ({"overrides": {"*": {"threshold": 0.0}}}, "threshold in"),
    "a pooling": ({"pooling": "conservativ"}, "did you mean 'conservative'"),
    "a threshold": ({"threshold": 1.5}, "threshold in"),
    "a fill": ({"fill": "men"}, "did you mean 'mean'"),
    "no generator": ({"fill": "max_normal"}, "torch.Generator"),
    "a tolerance": ({"tolerance": 1e-7}, "nanops.Tolerance"),
    "ties": ({"max_ties": 0}, "max_ties"),
    "a policy": ({"final": "zeros"}, "did you mean 'zero'"),
    "a class": ({"final": "background", "background": -1}, "class from 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_option_that_makes_no_sense_is_named(case):
    options, sentence = WRONG[case]
    with pytest.raises(InputError, match=sentence) as refusal:
        nanops.convert(Modules(), **options)
    assert str(refusal.value)[-1] in ".?" and str(refusal.value)[-2] not in ".?"  # one sentence, one end


def test_the_example_of_the_package_is_true():
    found = doctest.testmod(nanops)
    assert found.attempted > 8 and found.failed == 0
