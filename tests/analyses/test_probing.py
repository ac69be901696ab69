"""A converted model is probed like any other: each rounding inside its NaN operators is perturbed."""

import pytest
import torch

import mcaprobe
import nanops
from nanops import Tolerance
from tests.nanops.nets import Functional, Modules, image, seeded


@pytest.mark.parametrize("pooling", ["conservative", "aggressive", "hybrid"])
@pytest.mark.parametrize("kind", [Modules, Functional])
def test_no_operator_of_a_converted_model_is_unmodelled(kind, pooling):
    result = mcaprobe.run(nanops.convert(seeded(kind()), pooling), image(1), samples=5)
    assert result.manifest["side_by_side"] and "unmodelled" not in result.manifest["operators"].values()
    assert result.manifest["operators"]["convolution"] in ("decomposed", "compiled", "modelled")


def test_one_perturbed_forward_of_a_converted_model_differs():
    converted, x = nanops.convert(seeded(Modules()), tolerance=Tolerance("ulps", 16)), image(1)
    with torch.inference_mode():
        plain = converted(x)
        with mcaprobe.perturb(seed=1):
            first = converted(x)
        with mcaprobe.perturb(seed=2):
            second = converted(x)
    inside = (..., slice(5, 11), slice(5, 11))
    assert not torch.equal(first[inside], second[inside])
    torch.testing.assert_close(first, plain, rtol=1e-4, atol=1e-4)


def test_without_ties_the_digits_are_those_of_the_stock_model():
    """No NaN: every NaN operator has the roundings of torch's own."""
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(11))
    model = seeded(Modules())
    stock = mcaprobe.run(model, x, samples=10)
    probed = mcaprobe.run(nanops.convert(model, "aggressive", tolerance=Tolerance("ulps", 0)), x, samples=10)
    bits = [r["conv2"].significant_bits.nanmedian() for r in (stock, probed)]
    assert abs(float(bits[0] - bits[1])) < 0.5


def test_layers_of_a_converted_model_keep_their_names():
    model, x = seeded(Modules()), image(1)
    stock = mcaprobe.run(model, x, samples=2).layers
    probed = mcaprobe.run(nanops.convert(model), x, samples=2).layers
    assert [name for name in probed if name != ":output"] == [name for name in stock if name != ":output"]
