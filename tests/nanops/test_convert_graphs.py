"""Converted models compile and trace, and their graphs know NaN for any input."""

import pytest
import torch
from torch import nn

import nanops
from nanops import ConversionError
from tests.nanops.images import same_bits
from tests.nanops.nets import Functional, Modules, Tail, image, seeded, untied
from tests.nanops.test_convert_refusals import in_a_layer


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("pooling", ["conservative", "aggressive"])
@pytest.mark.parametrize("style", [Modules, Functional])
def test_a_compiled_conversion_gives_the_same(style, pooling):
    converted = nanops.convert(seeded(style()), pooling)
    compiled = torch.compile(converted, backend="aot_eager")
    with torch.no_grad():
        for x in (image(), untied(), image(seed=4)):
            torch.testing.assert_close(compiled(x), converted(x))
        assert not same_bits(compiled(image()), nanops.restore(converted)(image()))


def test_a_compiled_conversion_refuses_too():
    compiled = torch.compile(nanops.convert(in_a_layer(lambda y: y.cumsum(2))), backend="aot_eager")
    with torch.no_grad(), pytest.raises(ConversionError, match="layer 'odd': a NaN reached cumsum"):
        compiled(image())


# torch's own max_unpool2d does not trace, which leaves the poolings that replace it.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("pooling", ["conservative", "hybrid"])
@pytest.mark.parametrize("style", [Modules, Functional])
def test_a_trace_of_a_conversion_knows_nan(style, pooling):
    converted = nanops.convert(seeded(style()), pooling)
    with torch.no_grad():
        traced = torch.jit.trace(converted, untied())  # no NaN arises while it is traced
        for x in (image(), untied(), image(seed=4)):
            assert same_bits(traced(x), converted(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_keeps_the_final_policy():
    model = seeded(Tail(lambda m, y: m.linear(y).softmax(1), linear=nn.Linear(16, 3)))
    converted = nanops.convert(model)
    with torch.no_grad():
        traced = torch.jit.trace(converted, untied())
        assert same_bits(traced(image()), converted(image())) and traced(image()).isfinite().all()
