"""Gradients of pooling and unpooling: to the place that the value has, and none through a NaN."""

import pytest
import torch
import torch.nn.functional as F

from nanops.functional import pooling, unpooling
from tests.nanops.pooling_cases import NAN, ROUTES, channels_last, take

FUNCTIONS = ("aggressive_max_pool", "multi_max_pool", "hybrid_max_pool")
STOCK = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
SHAPES = {1: (2, 3, 9), 2: (2, 3, 5, 6), 3: (1, 1, 3, 3, 4)}


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Each route in turn."""
    take(monkeypatch, request.param)
    return request.param


def distinct(dims: int, dtype=torch.float64) -> torch.Tensor:
    """Numbers that are all different, by far."""
    shape = SHAPES[dims]
    order = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(dims))
    return order.reshape(shape).to(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dims", SHAPES)
def test_gradients_of_pooled_values_are_the_numerical_ones(dims, name):
    f = getattr(pooling, f"{name}{dims}d")
    x = distinct(dims).requires_grad_()
    for options in ((2,), (3, 2, 1), (2, 1, 0, 2)):
        assert torch.autograd.gradcheck(lambda t, o=options: f(t, *o)[0], x)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dims", SHAPES)
def test_gradients_are_torchs_where_nothing_ties(dims, name, last, route):
    x = distinct(dims, torch.float32)
    x = (channels_last(x) if last else x).requires_grad_()
    values, _ = getattr(pooling, f"{name}{dims}d")(x, 3, 2, 1)
    weight = torch.rand_like(values)
    (found,) = torch.autograd.grad(values, x, weight)
    (expected,) = torch.autograd.grad(STOCK[dims](x, 3, 2, 1), x, weight)
    assert torch.allclose(found, expected, rtol=1e-6)


def test_of_tied_values_the_first_has_the_gradient_as_in_torch(route):
    x = torch.tensor([[[2.0, 2.0, 1.0, 3.0]]], requires_grad=True)
    pooling.multi_max_pool1d(x, 2)[0].sum().backward()
    assert x.grad.tolist() == [[[1.0, 0.0, 0.0, 1.0]]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_gradient_passes_through_a_nan(name, route):
    x = torch.tensor([[[NAN, NAN, 1.0, 3.0, 2.0, 2.0]]], requires_grad=True)
    values, _ = getattr(pooling, f"{name}1d")(x, 2)
    (found,) = torch.autograd.grad(values, x, torch.full_like(values, 7.0))
    assert found.tolist() == [[[0.0, 0.0, 0.0, 7.0, 7.0 if name == "multi_max_pool" else 0.0, 0.0]]]


def test_a_window_in_the_padding_alone_has_no_gradient():
    x = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    pooling.multi_max_pool1d(x, 2, 1, 1, 3)[0].sum().backward()
    assert (x.grad == 0).all()


@pytest.mark.parametrize("dims", SHAPES)
def test_gradients_of_unpooled_values_are_the_numerical_ones(dims):
    unpool = getattr(unpooling, f"conservative_max_unpool{dims}d")
    for options in ((2,), (3, 2, 1)):
        values, ties = getattr(pooling, f"multi_max_pool{dims}d")(distinct(dims), *options)
        values = torch.randperm(values.numel(), dtype=torch.float64).reshape(values.shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda v, t=ties, o=options: unpool(v, t, *o), values)
        single = values.detach()[0].requires_grad_()
        assert torch.autograd.gradcheck(lambda v, t=ties, o=options: unpool(v, t[0], *o), single)


def test_only_untied_values_get_a_gradient_from_where_they_stand(route):
    x = torch.tensor([[[1.0, 2.0, 3.0, 3.0, NAN, NAN, 5.0, 4.0]]])
    values, ties = pooling.multi_max_pool1d(x, 2)
    values.requires_grad_()
    y = unpooling.conservative_max_unpool1d(values, ties, 2)
    (found,) = torch.autograd.grad(y, values, torch.arange(1.0, 9.0).reshape(1, 1, 8))
    assert found.tolist() == [[[2.0, 0.0, 0.0, 7.0]]]


def test_the_larger_of_overlapping_values_gets_the_gradient_and_equal_ones_share_it(route):
    ties = torch.tensor([[[2, 1], [2, 1]]], dtype=torch.uint8)
    values = torch.tensor([[[1.0, 3.0], [2.0, 2.0]]], requires_grad=True)
    y = unpooling.conservative_max_unpool1d(values, ties, 2, 1)
    (found,) = torch.autograd.grad(y, values, torch.full_like(y, 6.0))
    assert found.tolist() == [[[0.0, 6.0], [3.0, 3.0]]]


def test_a_pooling_and_its_unpooling_differentiate_together(route):
    x = distinct(2, torch.float32).requires_grad_()
    y = unpooling.conservative_max_unpool2d(*pooling.multi_max_pool2d(x, 2), 2, output_size=(5, 6))
    (found,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(found, ((y.detach() == x) & (x != 0)).float())


def test_second_derivatives_are_those_of_a_choice():
    x = distinct(2)[:1, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t: pooling.multi_max_pool2d(t, 2)[0], x)
    assert torch.autograd.gradgradcheck(lambda t: pooling.aggressive_max_pool2d(t, 2)[0], x)
    values, ties = pooling.multi_max_pool2d(x.detach(), 2)
    values.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: unpooling.conservative_max_unpool2d(v, ties, 2), values)
