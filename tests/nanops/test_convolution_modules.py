"""The modules are torch's, with options: same state dicts, shared parameters, hooks, repr."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from nanops import functional as F
from nanops import modules
from nanops.errors import ConversionError, InputError
from tests.nanops.convolutions import OWN_WARNING, normal_numbers, with_nan
from tests.nanops.images import same_bits

pytestmark = OWN_WARNING
DIMS = (1, 2, 3)
CONV = {d: (getattr(modules, f"NanConv{d}d"), getattr(nn, f"Conv{d}d"), getattr(F, f"nan_conv{d}d")) for d in DIMS}
TRANSPOSE = {
    d: tuple(getattr(*at) for at in ((modules, f"NanConvTranspose{d}d"), (nn, f"ConvTranspose{d}d"),
                                     (F, f"nan_conv_transpose{d}d")))
    for d in DIMS
}  # fmt: skip
dims = pytest.mark.parametrize("d", DIMS)
NAN = float("nan")


def image(d, **options):
    return with_nan(normal_numbers(2, 4, *(6,) * d), "iid", rate=0.4, **options)


@dims
@pytest.mark.parametrize("family", [CONV, TRANSPOSE], ids=["conv", "transposed"])
def test_forward_is_the_function(d, family):
    ours, torchs, function = family[d]
    m = ours(4, 6, 3, stride=2, padding=1, groups=2, threshold=0.4, count_padding=False)
    assert isinstance(m, torchs) and not hasattr(torchs(4, 6, 3), "threshold")
    steps = {"stride": 2, "padding": 1, "groups": 2}
    y = m(image(d))
    assert same_bits(y, function(image(d), m.weight, m.bias, **steps, threshold=0.4, count_padding=False))
    assert y.isnan().any() and torch.allclose(m(image(d)[0]), y[0], atol=1e-5, equal_nan=True) and y.requires_grad


@dims
@pytest.mark.parametrize("family", [CONV, TRANSPOSE], ids=["conv", "transposed"])
def test_state_dicts_are_interchangeable(d, family):
    ours, torchs, _ = family[d]
    options = {"dilation": 2, "bias": False} if d == 1 else {"padding": 1}
    a = ours(4, 4, 3, **options, fill="max_normal", generator=torch.Generator().manual_seed(1))
    b = torchs(4, 4, 3, **options)
    assert list(a.state_dict()) == list(b.state_dict())
    b.load_state_dict(a.state_dict())
    clean = normal_numbers(1, 4, *(6,) * d)
    assert torch.equal(a(clean), b(clean))
    a.load_state_dict(torchs(4, 4, 3, **options).state_dict())


@dims
@pytest.mark.parametrize("family", [CONV, TRANSPOSE], ids=["conv", "transposed"])
def test_from_torch_shares_parameters(d, family):
    ours, torchs, _ = family[d]
    b = torchs(4, 4, 3, stride=2, padding=1, groups=2).eval()
    b.weight.requires_grad_(False)
    a = ours.from_torch(b, threshold=0.9, uniform=True)
    assert a.weight is b.weight and a.bias is b.bias and not a.training and type(a) is ours
    assert (a.threshold, a.fill, a.uniform, a.count_padding) == (0.9, "mean", True, True)
    clean = normal_numbers(1, 4, *(6,) * d)
    assert torch.equal(a(clean), b(clean))
    assert a.to(torch.float64).weight.dtype == torch.float64
    assert ours.from_torch(ours(4, 4, 3, threshold=0.3)).threshold == 0.5


def test_from_torch_refuses_other_modules_and_options():
    with pytest.raises(ConversionError, match="Expected a Conv2d to make a NanConv2d of, got a Conv1d"):
        modules.NanConv2d.from_torch(nn.Conv1d(1, 1, 1))
    with pytest.raises(InputError, match="Expected a threshold"):
        modules.NanConv2d.from_torch(nn.Conv2d(1, 1, 1), threshold=2)
    with pytest.raises(InputError, match="Expected a threshold"):
        modules.NanConv2d(1, 1, 1, threshold=2)


@dims
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_is_image(d, mode):
    """NaN that padding repeats counts as NaN, also where zeros would not be counted."""
    ours, torchs, function = CONV[d]
    for padding in (1, "same"):
        b = torchs(4, 2, 2, padding=padding, padding_mode=mode)
        for a in (ours.from_torch(b), ours(4, 2, 2, padding=padding, padding_mode=mode, count_padding=False)):
            a.weight, a.bias = b.weight, b.bias
            clean = normal_numbers(1, 4, *(6,) * d)
            assert torch.equal(a(clean), b(clean))
            ends = [1, 1] * d if padding == 1 else [0, 1] * d
            assert same_bits(a(image(d)), function(nn.functional.pad(image(d), ends, mode=mode), b.weight, b.bias))
    with pytest.raises(ValueError, match="zeros"):
        TRANSPOSE[d][0](4, 2, 2, padding_mode=mode)


@dims
def test_a_transposed_module_takes_the_output_size(d):
    ours, torchs, _ = TRANSPOSE[d]
    b = torchs(4, 2, 3, stride=2, padding=1)
    a = ours.from_torch(b)
    clean = normal_numbers(1, 4, *(6,) * d)
    for n in (11, 12):
        assert torch.equal(a(clean, output_size=[n] * d), b(clean, output_size=[n] * d))
        assert a(image(d), [n] * d).shape == (2, 2, *(n,) * d)
    with pytest.raises(ValueError, match="requested an output size"):
        a(clean, output_size=[13] * d)


def test_hooks_fire():
    m, seen = modules.NanConv2d(4, 2, 3), []
    m.register_forward_pre_hook(lambda *_: seen.append("before"))
    m.register_forward_hook(lambda *_: seen.append("after"))
    m(image(2))
    assert seen == ["before", "after"]


def test_repr_shows_the_options():
    torchs = nn.Conv2d(4, 2, 3, padding=1).extra_repr()
    m = modules.NanConv2d(4, 2, 3, padding=1)
    assert m.extra_repr() == f"{torchs}, threshold=0.5, fill='mean'"
    m = modules.NanConv2d(4, 2, 3, padding=1, threshold=1 / 3, fill="max_normal", count_padding=False, uniform=True)
    assert m.extra_repr() == (
        f"{torchs}, threshold=0.333333, fill='max_normal', sigma=0.001, count_padding=False, uniform=True"
    )
    assert "threshold=0.5" in repr(modules.NanConvTranspose3d(1, 1, 1))


def test_copies_and_files():
    m = modules.NanConv2d(4, 2, 3, threshold=0.8)
    for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert other.weight is not m.weight and same_bits(other(image(2)), m(image(2)))
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    nn.Conv2d(4, 2, 3).load_state_dict(torch.load(file, weights_only=True))


def test_draws_go_on_from_call_to_call():
    def fresh():
        g = torch.Generator().manual_seed(3)
        return modules.NanConv2d.from_torch(layer, fill="max_normal", generator=g, threshold=0.9)

    layer = nn.Conv2d(4, 2, 3)
    a, b = fresh(), fresh()
    first, second = a(image(2)), a(image(2))
    assert same_bits(first, b(image(2))) and same_bits(second, b(image(2))) and not same_bits(first, second)


def test_gradients_reach_the_shared_parameters():
    layer = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ConvTranspose2d(3, 2, 2, stride=2))
    ours = nn.Sequential(modules.NanConv2d.from_torch(layer[0], threshold=1.0),
                         modules.NanConvTranspose2d.from_torch(layer[1]))  # fmt: skip
    x = image(2)
    x[:, :, 2:] = NAN
    ours(x).nansum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert layer[0].weight.grad.abs().sum() > 0
