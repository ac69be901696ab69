"""In a compiled, traced, exported or symbolic graph a NaN convolution is one node, and does what it does without."""

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nanops import functional as F
from nanops.modules import NanConv2d, NanConvTranspose2d
from tests.nanops.convolutions import DTYPES, normal_numbers, with_nan
from tests.nanops.images import FORMATS, compiled, same_bits

CALLS = {
    "conv": lambda x, w, b: F.nan_conv2d(x, w, b, padding=1),
    "same": lambda x, w, b: F.nan_conv2d(x, w, b, padding="same", threshold=0.8, count_padding=False),
    "strided": lambda x, w, b: F.nan_conv2d(x, w, b, stride=2, dilation=2, padding=(1, 2), return_skipped=True),
    "uniform": lambda x, w, b: F.nan_conv2d(x, w, b, uniform=True),
    "single": lambda x, w, b: F.nan_conv2d(x[0], w, b, padding=1, return_skipped=True),
    "transposed": lambda x, w, b: F.nan_conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
}
calls = pytest.mark.parametrize("name", CALLS)


def operands(dtype=torch.float32, layout=torch.contiguous_format):
    x = with_nan(normal_numbers(2, 3, 7, 8), "iid", rate=0.4).to(dtype).contiguous(memory_format=layout)
    return x, normal_numbers(3, 3, 3, 3, seed=1).to(dtype), normal_numbers(3, seed=2).to(dtype)


def same(a, b):
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    return all(same_bits(p, q) and p.stride() == q.stride() for p, q in pairs)


@calls
def test_compiled_as_one_graph(name):
    graph = compiled(CALLS[name])
    for layout in FORMATS[4]:
        x, w, b = operands(layout=layout)
        assert same(graph(x, w, b), CALLS[name](x, w, b))
        clean = x.nan_to_num(1.0)
        first, second = graph(clean, w, b), CALLS[name](clean, w, b)
        assert same(first, second)


@pytest.mark.parametrize("name", ["conv", "transposed"])
def test_compiled_for_any_size(name):
    torch._dynamo.reset()
    graph = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((2, 3, 7, 8), (3, 3, 9, 6)):
        x = with_nan(normal_numbers(*shape), "iid", rate=0.4)
        _, w, b = operands()
        assert same(graph(x, w, b), CALLS[name](x, w, b))


@pytest.mark.parametrize("name", ["conv", "same", "transposed"])
def test_compiled_gradients(name):
    found = []
    for operator in (CALLS[name], compiled(CALLS[name])):
        leaves = [t.requires_grad_() for t in operands()]
        operator(*leaves).nansum().backward()
        found.append([t.grad for t in leaves])
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_draws_break_the_graph_and_stay_the_same():
    x, w, b = operands()

    def call(x):
        g = torch.Generator().manual_seed(1)
        return F.nan_conv2d(x, w, b, fill="max_normal", generator=g) * 2

    torch._dynamo.reset()
    assert same_bits(torch.compile(call, backend="aot_eager")(x), call(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@calls
def test_traced(name):
    x, w, b = operands()
    traced = torch.jit.trace(CALLS[name], (x.nan_to_num(1.0), w, b))
    y, expected = traced(x, w, b), CALLS[name](x, w, b)
    assert all(same_bits(p, q) for p, q in (zip(y, expected, strict=True) if isinstance(y, tuple) else [(y, expected)]))


def test_symbolically_traced():
    x, w, b = operands()
    graph = torch.fx.symbolic_trace(lambda x: F.nan_conv2d(x, w, b, padding=1, threshold=0.4).relu())
    assert F.nan_conv2d in [node.target for node in graph.graph.nodes]
    assert same_bits(graph(x), F.nan_conv2d(x, w, b, padding=1, threshold=0.4).relu())
    model = torch.nn.Sequential(NanConv2d(3, 4, 3), NanConvTranspose2d(4, 2, 3, stride=2))
    assert same_bits(torch.fx.symbolic_trace(model)(x), model(x))


def test_exported():
    x, _, _ = operands()
    model = torch.nn.Sequential(NanConv2d(3, 4, 3), NanConvTranspose2d(4, 2, 3, stride=2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.export itself
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(model, (x,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("nanops.convolution.default") == 2
    assert same_bits(program.module()(x), model(x))


@calls
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fake_result_has_shape_dtype_and_strides_of_the_real_one(name, dtype):
    for layout in FORMATS[4]:
        tensors = operands(dtype, layout)
        real = CALLS[name](*tensors)
        with FakeTensorMode() as mode:
            fake = CALLS[name](*(mode.from_tensor(t) for t in tensors))
        meta = CALLS[name](*(t.to("meta") for t in tensors))
        for found in (fake, meta):
            for a, b in zip(found, real, strict=True) if isinstance(real, tuple) else [(found, real)]:
                assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


def test_the_operator_keeps_torchs_rules():
    """Schema, aliases, fake results and gradients, as torch's own checker sees them."""
    x, w, b = (t.requires_grad_() for t in operands())
    pair = [1, 1]
    settings = (pair, pair, pair, pair, 1, False, 1.0, "mean", 1e-3, True, False)
    torch.library.opcheck(torch.ops.nanops.convolution.default, (x, w, b, None, *settings))
