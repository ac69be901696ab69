"""Gradients are those of the composition: through valid values and means, never through skipped windows or NaN."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as T

from nanops import functional as F
from tests.nanops.convolutions import ROUTES, Case, normal_numbers, on, with_nan
from tests.nanops.images import same_bits

NAN = float("nan")
routes = pytest.mark.parametrize("route", ROUTES)


def layer(shape, weight, transposed=False, pattern="iid", **options):
    """Return a case in float32."""
    dims = len(shape) - 2
    ones = (1,) * dims
    settings = {"stride": ones, "padding": (0,) * dims, "dilation": ones}
    if transposed:
        settings["output_padding"] = (0,) * dims
    outputs = weight[1] * options.get("groups", 1) if transposed else weight[0]
    x = with_nan(normal_numbers(*shape), pattern, rate=0.4)
    return Case(x, normal_numbers(*weight, seed=1), normal_numbers(outputs, seed=2), **(settings | options))


LAYERS = {
    "plain": layer((2, 2, 4, 4), (2, 2, 3, 3)),
    "padded": layer((1, 2, 4, 4), (2, 2, 3, 3), padding=(1, 1)),
    "same": layer((1, 2, 4, 4), (2, 2, 2, 3), padding="same"),
    "uncounted": layer((1, 2, 4, 4), (2, 2, 3, 3), padding=(1, 1), count_padding=False),
    "strided": layer((1, 2, 7, 6), (2, 2, 3, 2), stride=(2, 2), dilation=(1, 2), padding=(1, 0)),
    "grouped": layer((2, 4, 5), (4, 2, 3), groups=2, padding=(2,), dilation=(2,)),
    "depthwise": layer((1, 3, 4, 4), (3, 1, 2, 2), groups=3, threshold=0.7),
    "volume": layer((1, 1, 3, 4, 3), (2, 1, 2, 2, 2), padding=(1, 0, 1), count_padding=False, threshold=0.7),
    "transposed": layer((1, 2, 3, 3), (2, 1, 3, 3), True, stride=(2, 2), padding=(1, 1), output_padding=(1, 1)),
    "transposed uncounted": layer((2, 4, 5), (4, 2, 3), True, stride=(2,), groups=2, dilation=(2,),
                                  count_padding=False),
    "transposed with gaps": layer((1, 2, 3, 3), (2, 1, 1, 1), True, stride=(2, 3)),
}  # fmt: skip
layers = pytest.mark.parametrize("name", LAYERS)


@layers
@pytest.mark.parametrize("fill", ["mean", "max_normal"])
def test_gradients_are_those_that_differences_give(name, fill):
    case = replace(LAYERS[name], fill=fill).to(torch.float64)
    valid = ~case.x.isnan()

    def finite(values, weight, bias):
        x = torch.full_like(case.x, NAN).masked_scatter(valid, values)
        y, _ = replace(case, x=x, weight=weight, bias=bias).run()
        return y[y.isfinite()]

    leaves = [t.clone().requires_grad_() for t in (case.x[valid], case.weight, case.bias)]
    assert finite(*leaves).numel() > 3 and not valid.all()
    assert torch.autograd.gradcheck(finite, leaves)


@routes
@layers
@pytest.mark.parametrize("fill", ["mean", "max_normal"])
def test_nothing_passes_through_what_is_nan(name, fill, route):
    """Skipped windows pass nothing, whatever arrives there; NaNs get 0."""
    case = replace(LAYERS[name], fill=fill)
    leaves = [t.clone().requires_grad_() for t in (case.x, case.weight, case.bias)]
    with on(route):
        y, skipped = replace(case, x=leaves[0], weight=leaves[1], bias=leaves[2]).run()
    dirty = normal_numbers(*y.shape, seed=9)
    clean = dirty.clone()
    dirty[y.isnan()], clean[y.isnan()] = NAN, 0.0
    found = torch.autograd.grad(y, leaves, dirty, retain_graph=True)
    expected = torch.autograd.grad(y, leaves, clean)
    assert not skipped.requires_grad and skipped.any()
    for a, b, t in zip(found, expected, leaves, strict=True):
        assert same_bits(a, b) and a.isfinite().all() and a.shape == t.shape
    assert (found[0][case.x.isnan()] == 0).all()


@routes
@layers
def test_forward_with_gradients_is_the_kernels_own(name, route):
    case = LAYERS[name]
    learning = replace(case, weight=case.weight.clone().requires_grad_())
    with on(route):
        (y, skipped), (other, where) = case.run(), learning.run()
    assert other.requires_grad and same_bits(y, other.detach()) and torch.equal(skipped, where)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)])
@pytest.mark.parametrize("name", ["padded", "transposed"])
def test_only_what_is_asked_for_is_differentiated(name, needed):
    case = LAYERS[name]
    grads = []
    for asked in (needed, (0, 1, 2)):
        leaves = [t.clone().requires_grad_(i in asked) for i, t in enumerate((case.x, case.weight, case.bias))]
        y, _ = replace(case, x=leaves[0], weight=leaves[1], bias=leaves[2]).run()
        y.nansum().backward()
        grads.append([leaves[i].grad for i in needed])
        assert all(t.grad is None for i, t in enumerate(leaves) if i not in asked)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


def test_without_a_bias_and_without_gradients():
    x, w = LAYERS["plain"].x, LAYERS["plain"].weight.clone().requires_grad_()
    with torch.no_grad():
        assert not F.nan_conv2d(x, w).requires_grad
    F.nan_conv2d(x, w).nansum().backward()
    assert w.grad.isfinite().all()


def test_without_nan_the_gradients_are_torchs_and_have_gradients_themselves():
    x, w = normal_numbers(1, 2, 5, 5).requires_grad_(), normal_numbers(3, 2, 3, 3).requires_grad_()
    for options in ({}, {"uniform": True}):
        ours = torch.autograd.grad(F.nan_conv2d(x, w, **options).square().sum(), (x, w))
        torchs = torch.autograd.grad(T.conv2d(x, w).square().sum(), (x, w))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, torchs, strict=True))
    (first,) = torch.autograd.grad(F.nan_conv2d(x, w).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(first.sum(), w)[0].isfinite().all()


def test_infinities_in_skipped_windows_pass_nothing_to_the_weights():
    x = torch.tensor([[[float("inf"), NAN, NAN, NAN, 1.0, 2.0, 3.0]]])
    w = torch.ones(1, 1, 3).requires_grad_()
    F.nan_conv1d(x, w).nansum().backward()
    assert torch.equal(w.grad, torch.tensor([[[1.5 + 1.0, 1.0 + 2.0, 2.0 + 3.0]]]))


def test_tied_maxima_share_the_gradient():
    x = torch.tensor([[[5.0, NAN, 5.0]]], requires_grad=True)
    w = torch.tensor([[[0.0, 2.0, 0.0]]])
    F.nan_conv1d(x, w, fill="max_normal", generator=torch.Generator().manual_seed(1)).sum().backward()
    assert torch.equal(x.grad, torch.tensor([[[1.0, 0.0, 1.0]]]))


def test_a_second_derivative_is_refused():
    x = LAYERS["plain"].x.clone().requires_grad_()
    w = LAYERS["plain"].weight.clone().requires_grad_()
    (first,) = torch.autograd.grad(F.nan_conv2d(x, w).nansum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="Expected a NaN convolution to be differentiated once, got a second"):
        first.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_dtypes_have_gradients_of_their_own_dtype(dtype):
    case = LAYERS["padded"].to(dtype)
    w = case.weight.clone().requires_grad_()
    wide = case.weight.double().requires_grad_()
    replace(case, weight=w).run()[0].nansum().backward()
    replace(case.to(torch.float64), weight=wide).run()[0].nansum().backward()
    assert w.grad.dtype == dtype and torch.allclose(w.grad.double(), wide.grad, rtol=0.05, atol=0.2)


def test_a_size_first_seen_in_inference_mode_has_gradients_later():
    x = torch.full((1, 2, 37, 41), 3.0)
    x[..., 10:20, 12:30] = normal_numbers(1, 2, 10, 18)
    weight = normal_numbers(3, 2, 3, 3)
    with torch.inference_mode():
        F.nan_conv2d(x, weight, padding=1, uniform=True)
    x.requires_grad_()
    F.nan_conv2d(x, weight, padding=1, uniform=True).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
