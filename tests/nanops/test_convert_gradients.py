"""Gradients of a converted model: elementwise products with parameters, where 0 times NaN would be NaN."""

import pytest
import torch
from torch import nn

import nanops

PRODUCTS = {
    "prelu": lambda x, g: nn.functional.prelu(x - 0.5, g.reshape(-1)),
    "mul": lambda x, g: x * g,
    "in place": lambda x, g: x.clone().mul_(g),
    "augmented": lambda x, g: x.clone().__imul__(g),
    "div": lambda x, g: x / g,
    "from the right": lambda x, g: 3.0 / (g + x),
    "pow": lambda x, g: (x + 1) ** g,
    "addcmul": lambda x, g: torch.addcmul(x, x, g),
    "lerp": lambda x, g: torch.lerp(x, 2 * x, g),
}


class Learns(nn.Module):
    """An unpool whose result meets a parameter."""

    def __init__(self, product):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.gain = nn.Parameter(torch.tensor([[[1.3]], [[0.7]]], dtype=torch.float64))
        self.product = product

    def forward(self, x):
        return self.product(self.unpool(*self.pool(x)), self.gain)


def image():
    """Return an image with ties at its border, so that the unpool writes NaN there."""
    x = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    x[..., 2:6, 2:6] = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_parameter_learns_from_what_is_no_nan(name):
    model, x = Learns(PRODUCTS[name]), image()
    y = nanops.convert(model, "conservative", final="zero")(x)
    (gain,) = torch.autograd.grad(y.sum(), model.gain)
    # By hand: the same product where the unpool has a number, 0 elsewhere.
    values, ties = nanops.functional.multi_max_pool2d(x, 2)
    unpooled = nanops.functional.conservative_max_unpool2d(values, ties, 2)
    hidden = unpooled.isnan()
    assert hidden.any() and not hidden.all()
    by_hand = torch.where(hidden, 0.0, PRODUCTS[name](torch.where(hidden, 1.0, unpooled), model.gain))
    assert torch.equal(y, by_hand)
    (expected,) = torch.autograd.grad(by_hand.sum(), model.gain)
    assert torch.allclose(gain, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PRODUCTS)
def test_values_are_those_without_gradients(name):
    model, x = Learns(PRODUCTS[name]), image()
    converted = nanops.convert(model, "conservative", final="keep")
    with torch.no_grad():
        plain = converted(x)
    assert torch.equal(converted(x).detach().nan_to_num(9.0), plain.nan_to_num(9.0))


def test_a_power_of_nothing_is_one_even_of_nan():
    model = Learns(lambda x, g: x ** (g * 0))
    y = nanops.convert(model, "conservative", final="keep")(image())
    assert torch.equal(y, torch.ones_like(y))
    (gain,) = torch.autograd.grad(y.sum(), model.gain)
    assert gain.isfinite().all()
