"""Layers that wait for those behind them give what they give one by one, whoever looks and whatever is written."""

import gc
from collections import OrderedDict
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nanops
from nanops.conversion import deferred
from nanops.conversion.deferred import Activated, Convolved, Deferred
from nanops.errors import InputError
from nanops.kernels import convolution as kernel
from tests.nanops.convolutions import INSTRUCTIONS, needs_kernels, normal_numbers, on, threads, with_nan
from tests.nanops.images import same_bits
from tests.nanops.nets import seeded
from tests.reference.convolution_twin import nan_conv

pytestmark = needs_kernels
ACTIVATIONS = {
    "none": lambda c: nn.Identity(), "prelu": lambda c: nn.PReLU(), "prelus": nn.PReLU,
    "leaky": lambda c: nn.LeakyReLU(0.3), "relu": lambda c: nn.ReLU(),
}  # fmt: skip


class Chain(nn.Module):
    """Activation, convolution, norm, and the larger one of that and an image."""

    def __init__(self, activation, convolution, norm, other):
        super().__init__()
        self.activation, self.convolution, self.norm, self.other = activation, convolution, norm, other

    def forward(self, x, image=None):
        y = self.norm(self.convolution(self.activation(x)))
        if self.other == "none":
            return y
        return torch.maximum(y, x) if self.other == "input" else torch.max(image, y)


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def flat(x, channels):
    """Return x with a background of one vector, in which windows are uniform."""
    x[:, :, : x.shape[2] // 2] = torch.linspace(-1, 1, channels)[:, None, None]
    return x


def even(channels=8, size=12):
    """Return images without NaN, most of whose windows are uniform."""
    return last(flat(normal_numbers(2, channels, size, size), channels))


@st.composite
def chains(draw):
    """Draw a model, its two images, and the options of its conversion."""
    size = draw(st.integers(5, 11)), draw(st.integers(5, 9))
    kernel = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 3]))
    other = draw(st.sampled_from(["none", "input", "image"]))
    channels = draw(st.sampled_from([1, 3, 8, 16, 19]))
    same = other == "input" or draw(st.booleans())
    outputs = channels if other == "input" else draw(st.sampled_from([1, 5, 8, 16, 24]))
    steps = {"padding": "same"} if same else {
        "stride": draw(st.sampled_from([1, 2, (2, 1)])), "padding": draw(st.integers(0, 2)),
        "dilation": draw(st.sampled_from([1, 2])),
    }  # fmt: skip
    convolution = nn.Conv2d(channels, outputs, kernel, bias=draw(st.booleans()), **steps)
    norm = nn.BatchNorm2d(outputs, affine=draw(st.booleans())) if draw(st.booleans()) else nn.Identity()
    activation = ACTIVATIONS[draw(st.sampled_from(list(ACTIVATIONS)))](channels)
    seed = draw(st.integers(0, 99))
    model = seeded(Chain(activation, convolution, norm, other), seed)
    x = normal_numbers(draw(st.integers(1, 2)), channels, *size, seed=seed)
    if draw(st.booleans()):
        x = flat(x, channels)
    pattern = draw(st.sampled_from(["iid", "pixels", "cluster", "border", "row", "all"]))
    x = last(with_nan(x, pattern, seed, draw(st.sampled_from([0.1, 0.5, 0.8]))))
    with torch.no_grad():
        shape = convolution(x).shape
    image = last(with_nan(normal_numbers(*shape, seed=seed + 1), "pixels", seed, 0.2))
    options = {
        "threshold": draw(st.sampled_from([0.4, 0.5, 0.8, 1.0])), "uniform": draw(st.booleans()),
        "count_padding": draw(st.booleans()), "final": "keep",
    }  # fmt: skip
    return model, x, image, options


def by_twin(model, x, image, options):
    """Return the chain in float64, window by window."""
    x = x.double().numpy()
    active = x.copy()
    if not isinstance(model.activation, nn.Identity):
        slope = getattr(model.activation, "negative_slope", 0.0)
        if isinstance(model.activation, nn.PReLU):
            slope = model.activation.weight.detach().double().numpy()[:, None, None]
        active = np.where(x > 0, x, x * slope)
        if isinstance(model.activation, nn.ReLU):
            active[~np.isnan(x) & ~(x > 0)] = 0
    conv = model.convolution
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    ends = (([t // 2 for t in total], [t - t // 2 for t in total]) if conv.padding == "same"
            else (conv.padding, conv.padding))  # fmt: skip
    bias = None if conv.bias is None else conv.bias.detach().double().numpy()
    y, _ = nan_conv(
        active, conv.weight.detach().double().numpy(), bias, conv.stride, *ends, conv.dilation, 1,
        options["threshold"], "mean", options["count_padding"],
    )  # fmt: skip
    if isinstance(model.norm, nn.BatchNorm2d):
        norm = model.norm
        mean, var = (t.double().numpy()[:, None, None] for t in (norm.running_mean, norm.running_var))
        y = (y - mean) / np.sqrt(var + norm.eps)
        if norm.affine:
            y = y * norm.weight.detach().double().numpy()[:, None, None]
            y = y + norm.bias.detach().double().numpy()[:, None, None]
    if model.other == "none":
        return y
    return np.maximum(y, x if model.other == "input" else image.double().numpy())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=120, deadline=None)
@given(case=chains(), route=st.sampled_from(INSTRUCTIONS), count=st.sampled_from([1, 2]))
def test_a_chain_is_that_of_the_loops(case, route, count):
    model, x, image, options = case
    before = x.clone(), image.clone()
    with on(route), threads(count), torch.no_grad():
        converted = nanops.convert(model, None, **options)
        y = converted(x, image)
        with nanops.count_skipped(converted):  # whoever counts makes every layer run by itself
            apart = converted(x, image)
    answer = by_twin(model, x, image, options)
    assert type(y) is torch.Tensor and (y.stride() == apart.stride() or 1 in (x.shape[1], y.shape[1]))
    np.testing.assert_array_equal(y.isnan().numpy(), np.isnan(answer))
    np.testing.assert_allclose(y.numpy(), answer, rtol=2e-4, atol=2e-4)
    if isinstance(model.norm, nn.Identity) and x.shape[1] > 1:  # one channel is for the depthwise kernel
        assert same_bits(y, apart)
    else:
        np.testing.assert_allclose(y.numpy(), apart.numpy(), rtol=1e-6, atol=1e-6)
    assert same_bits(x, before[0]) and same_bits(image, before[1])


@pytest.mark.parametrize("route", INSTRUCTIONS)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("other", ["none", "input", "image"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_uniform_windows_get_what_stands_behind_them(activation, other, normed, route):
    norm = nn.BatchNorm2d(16) if normed else nn.Identity()
    model = seeded(Chain(ACTIVATIONS[activation](16), nn.Conv2d(16, 16, 3, padding=1), norm, other))
    x, image = even(16), last(normal_numbers(2, 16, 12, 12, seed=5))
    with on(route), torch.inference_mode():
        found = nanops.convert(model, None, uniform=True)(x, image)
        torch.testing.assert_close(found, model(x, image), rtol=1e-4, atol=1e-5)


@pytest.fixture
def work(monkeypatch):
    """Count the kernel's calls, and the activations that were computed as images."""
    found = SimpleNamespace(calls=0, images=0)

    def count(cls, name, what):
        own = getattr(cls, name)

        def counted(*args, **kwargs):
            setattr(found, what, getattr(found, what) + 1)
            return own(*args, **kwargs)

        monkeypatch.setattr(cls, name, counted)

    count(kernel.Job, "convolve", "calls")
    count(Activated, "compute", "images")
    return found


class Competing(nn.Module):
    """Three times: the larger one of x and what a convolution makes of its activation."""

    def __init__(self, channels=8, inplace=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(3))
        self.active = nn.LeakyReLU(0.2, inplace)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.maximum(norm(layer(self.active(x))), x)
        return x


def sparse(channels=8, size=12):
    return last(with_nan(normal_numbers(2, channels, size, size), "cluster"))


def test_each_convolution_is_one_call_and_no_activation_is_an_image(work):
    model, x = nanops.convert(seeded(Competing()), None, final="keep"), sparse()
    with torch.inference_mode():
        y = model(x)
    assert work.calls == 3 and work.images == 0
    with torch.inference_mode(), nanops.count_skipped(model):
        np.testing.assert_allclose(y.numpy(), model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert work.calls == 6


def test_where_nothing_is_to_be_skipped_torchs_own_layers_run(work):
    model = seeded(Competing())
    x = last(normal_numbers(2, 8, 12, 12))
    with torch.inference_mode():
        assert same_bits(nanops.convert(model, None)(x), model(x))
        assert same_bits(nanops.convert(model, None, uniform=True)(x), model(x))
    assert work.calls == 0 and work.images == 6


WRITES = {
    "in place": lambda m, x, y: x.add_(1),
    "operator": lambda m, x, y: x.__iadd__(1),
    "item": lambda m, x, y: x.__setitem__((0, 0), 5.0),
    "slice of it": lambda m, x, y: x[:, :2].mul_(3),
    "out": lambda m, x, y: torch.add(x, 1, out=x),
    "flag": lambda m, x, y: nn.functional.relu(x, True),
    "number for a flag": lambda m, x, y: nn.functional.relu(x, 1),
    "data": lambda m, x, y: setattr(x, "data", torch.zeros_like(x)),
    "set": lambda m, x, y: x.set_(torch.zeros_like(x)),
    "training": lambda m, x, y: nn.functional.batch_norm(
        x.clone(), m.norm.running_mean, m.norm.running_var, training=True, momentum=0.9
    ),
    "weight": lambda m, x, y: setattr(m.second, "weight", nn.Parameter(torch.zeros_like(m.second.weight))),
    "norm": lambda m, x, y: setattr(m.norm, "running_mean", torch.ones(8)),
    "epsilon": lambda m, x, y: setattr(m.norm, "eps", 5.0),
    "no bias": lambda m, x, y: setattr(m.second, "bias", None),
    "named flag": lambda m, x, y: nn.functional.leaky_relu(x, inplace=True),
    "layer": lambda m, x, y: m.writer(x),
    "copy": lambda m, x, y: x.copy_(torch.zeros_like(x)),
}


class Writing(nn.Module):
    """Makes tensors that wait, writes into what they depend on, and returns them."""

    def __init__(self, write):
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.active, self.norm, self.writer = nn.PReLU(), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.write = write

    def forward(self, x):
        x = x.clone(memory_format=torch.channels_last)
        found = [self.first(x), self.norm(self.second(x)), self.active(x)]
        found.append(self.second(found[2]))
        self.write(self, x, found)
        return [*found, x]


@pytest.mark.parametrize("name", WRITES)
def test_what_waits_is_computed_before_its_input_is_written(name):
    x = sparse()
    with torch.no_grad():
        together = nanops.convert(seeded(Writing(WRITES[name])), None, final="keep")(x)
        model = nanops.convert(seeded(Writing(WRITES[name])), None, final="keep")  # some change the model
        with nanops.count_skipped(model):
            apart = model(x)
    for y, z in zip(together, apart, strict=True):
        np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-5, atol=1e-6)


class Looking(nn.Module):
    """Looks at tensors that wait, in many ways."""

    def __init__(self, look):
        super().__init__()
        self.layer, self.norm, self.look = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), look

    def forward(self, x):
        return self.look(self, self.norm(self.layer(x)))


LOOKS = {
    "itself": lambda m, y: y,
    "sum": lambda m, y: y + y,
    "reflected": lambda m, y: 2.0 - y,
    "part": lambda m, y: y[:, 2:5],
    "cat": lambda m, y: torch.cat([y, y], 1),
    "cat of a list in a list": lambda m, y: torch.cat([*[y], y.clone()], 1),
    "numpy": lambda m, y: torch.from_numpy(y.numpy().copy()),
    "list": lambda m, y: torch.tensor(y.tolist()),
    "data": lambda m, y: y.data,
    "detached": lambda m, y: y.detach(),
    "own maximum": lambda m, y: torch.maximum(y, y),
    "reduced": lambda m, y: torch.max(y, 1)[0],
    "broadcast maximum": lambda m, y: torch.maximum(y, y[:, :1]),
    "maximum in another format": lambda m, y: torch.maximum(y, y.contiguous(memory_format=torch.contiguous_format)),
    "maximum of float64": lambda m, y: torch.maximum(y, y.double()),
    "stored": lambda m, y: m.__dict__.setdefault("kept", []).append(y) or m.kept[-1],
    "low level": lambda m, y: torch.ops.aten.relu(y),
    "again": lambda m, y: m.layer(m.layer(y)),
    "other layer": lambda m, y: nn.functional.gelu(y),
    "channels first": lambda m, y: m.layer(y.contiguous(memory_format=torch.contiguous_format)),
    "single image": lambda m, y: m.layer(y[0]),
}


@pytest.mark.parametrize("name", LOOKS)
def test_whatever_looks_at_it_sees_what_the_layers_make(name, work):
    model, x = nanops.convert(seeded(Looking(LOOKS[name])), None, uniform=True), even()
    with torch.inference_mode():
        y = model(x)
        assert work.calls
        with nanops.count_skipped(model):
            z = model(x)
    assert type(y) is torch.Tensor and y.dtype == z.dtype and y.stride() == z.stride()
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_known_before_it_is_computed():
    seen = []

    def look(m, y):
        seen.append((type(y), y.shape, y.dtype, y.device, y.dim(), y.is_contiguous(memory_format=torch.channels_last),
                     y.numel(), y.is_floating_point(), y.value is None))  # fmt: skip
        return y

    with torch.inference_mode():
        nanops.convert(seeded(Looking(look)), None)(sparse())
    assert seen == [(Deferred, (2, 8, 12, 12), torch.float32, torch.device("cpu"), 4, True, 2304, True, True)]


def test_a_tensor_that_was_stored_can_be_used_later():
    kept = []
    model, x = nanops.convert(seeded(Looking(lambda m, y: kept.append(y) or x.clone())), None, final="keep"), sparse()
    other = nanops.convert(model._nanops.conversion.original, None, final="keep")
    other.look = lambda m, y: y
    with torch.inference_mode():
        model(x)
        y = other(x)
        x.zero_()
        (kept,) = kept
        assert same_bits(kept.clone(), y) and same_bits(torch.from_numpy(kept.numpy()), y) and "tensor" in repr(kept)


@pytest.mark.parametrize("kind", ["on the layer", "behind", "before", "of all modules"])
def test_hooks_see_tensors(kind):
    model, x, seen = nanops.convert(seeded(Competing()), None, uniform=True), even(), []

    def look(module, args, output=None):
        seen.append((type(args[0]), type(output)))
        for t in (args[0], output):
            assert t is None or t.clone().untyped_storage().nbytes() == 4 * 2 * 8 * 12 * 12

    if kind == "on the layer":
        handles = [model.layers[1].register_forward_hook(look)]
    elif kind == "behind":
        handles = [m.register_forward_hook(look) for m in model.modules()]
    elif kind == "before":
        handles = [m.register_forward_pre_hook(look) for m in model.modules()]
    else:
        handles = [nn.modules.module.register_module_forward_hook(look)]
    with torch.inference_mode():
        y = model(x)
    for handle in handles:
        handle.remove()
    assert seen and not any(Deferred in types for types in seen)
    with torch.inference_mode():
        np.testing.assert_allclose(model(x).numpy(), y.numpy(), rtol=1e-5, atol=1e-6)


def test_a_part_of_a_model_returns_tensors():
    parts = seeded(Competing()), seeded(Looking(lambda m, y: [y, {"y": y}]))
    model, x = nanops.convert(nn.Sequential(*parts), None), sparse()
    with torch.inference_mode():
        found = model[1](x)
        assert type(model[0](x)) is torch.Tensor
        assert type(found[0]) is torch.Tensor and type(found[1]["y"]) is torch.Tensor
        assert type(model[0].layers[0](x)) is torch.Tensor


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_nothing_waits_where_gradients_are_asked_or_a_graph_is_made():
    seen = []
    model = nanops.convert(seeded(Looking(lambda m, y: seen.append(type(y)) or y)), None)
    model(sparse())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(sparse())
    with torch.no_grad():
        torch.jit.trace(model, sparse(), check_trace=False)
        model.double()(sparse().double())
    assert Deferred not in seen and len(seen) >= 4


class Named(NamedTuple):
    """What a model may return."""

    first: torch.Tensor
    second: torch.Tensor


def test_named_tuples_and_ordered_dictionaries_hold_tensors():
    model, x = nanops.convert(nn.Sequential(seeded(Looking(lambda m, y: Named(y, y + 1)))), None, uniform=True), even()
    other = nanops.convert(nn.Sequential(seeded(Looking(lambda m, y: OrderedDict(y=y)))), None, uniform=True)
    both = nanops.convert(seeded(Looking(lambda m, y: torch.cat(Named(y, m.norm(m.layer(y)))))), None, uniform=True)
    with torch.inference_mode():
        found = model[0](x)
        assert type(found) is Named and type(found.first) is torch.Tensor and same_bits(found.first + 1, found.second)
        assert type(other[0](x)["y"]) is torch.Tensor
        assert both(x).shape == (4, 8, 12, 12)


def test_gradients_are_those_of_where_the_layers_were_called():
    def look(m, y):
        with torch.no_grad():
            frozen = m.norm(m.layer(y))
        return torch.maximum(frozen, m.layer(y)), frozen

    model = nanops.convert(seeded(Looking(look)), None)
    found, frozen = model(last(normal_numbers(2, 8, 12, 12)))
    assert found.requires_grad and not frozen.requires_grad
    found.sum().backward()
    assert model.layer.weight.grad.abs().sum() > 0


def test_a_type_that_was_announced_is_kept():
    def look(m, y):
        with torch.autocast("cpu", torch.bfloat16):
            return y.clone()

    model = nanops.convert(seeded(Looking(look)), None)
    with torch.no_grad():
        assert model(last(normal_numbers(2, 8, 12, 12))).dtype == torch.float32


def test_shapes_are_those_after_a_change_in_place():
    def look(m, y):
        y.unsqueeze_(0)
        assert y.shape == (1, 2, 8, 12, 12) and y.dim() == 5
        return y[0]

    with torch.inference_mode():
        nanops.convert(seeded(Looking(look)), None, uniform=True)(even())


def test_what_an_exception_carries_away_is_computed_before():
    kept = []

    def look(m, y):
        kept.append(y)
        raise KeyError("enough")

    model, x = nanops.convert(seeded(Looking(look)), None, final="keep"), sparse()
    with torch.inference_mode():
        with pytest.raises(KeyError):
            model(x)
        model.look = lambda m, y: y
        y = model(x)
        x.mul_(3)
        assert same_bits(kept[0].clone(), y)


def test_a_layer_whose_tensors_do_not_fit_is_refused_as_without():
    wrong = ("bias", (1,)), ("weight", (8, 4, 3, 3)), ("weight", (4, 8, 3, 3))
    for name, value in ((name, torch.zeros(shape)) for name, shape in wrong):
        model = nanops.convert(seeded(Looking(lambda m, y: y)), None)
        setattr(model.layer, name, nn.Parameter(value))
        with torch.inference_mode(), pytest.raises((InputError, RuntimeError)):
            model(sparse())


def test_settings_that_are_a_list_and_transforms_take_the_long_way():
    model, x = nanops.convert(seeded(Looking(lambda m, y: y)), None, final="keep"), sparse()
    with torch.no_grad():
        y = model(x)
        model.layer.padding = [1, 1]
        np.testing.assert_allclose(model(x).numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
        each = torch.func.vmap(lambda t: model(t[None])[0])(x)
        np.testing.assert_allclose(each.numpy(), y.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.LeakyReLU(0.0), *(nn.PReLU(init=v) for v in (0.0, torch.nan, torch.inf))])
def test_an_activation_that_makes_nan_runs_by_itself(layer):
    x = sparse()
    x[:, :, -4:] = -torch.inf
    x[:, 2, -2:] = 0
    model = nanops.convert(nn.Sequential(layer, nn.Conv2d(8, 8, 1)).eval(), None, final="keep")
    with torch.inference_mode():
        y = model(x)
        with nanops.count_skipped(model):
            assert same_bits(y, model(x))


def test_nothing_is_kept_after_a_forward():
    model, x = nanops.convert(seeded(Competing()), None), sparse()
    with torch.inference_mode():
        model(x)
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) in (Deferred, Activated, Convolved)]


def test_a_chain_is_computed_once(work):
    model, x = nanops.convert(seeded(Looking(lambda m, y: (y + 1) * (y + 2))), None), sparse()
    with torch.inference_mode():
        model(x)
    assert work.calls == 1


def test_infinities_are_cut_like_torchs(work):
    layer = seeded(nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)))
    x = sparse()
    x[:, :, -1, -1] = -torch.inf
    x[:, :, -2, -1] = -0.0
    model = nanops.convert(layer, None, final="keep")
    with torch.inference_mode():
        y = model(x)
        with nanops.count_skipped(model):
            assert same_bits(y, model(x))
    assert work.calls == 2 and y[:, :, -1, -1].isfinite().all()


def test_settling_leaves_other_values_as_they_are():
    odd = ({"a": 1}, [2, (3, "four")], None)
    assert deferred.settled(odd) is odd
