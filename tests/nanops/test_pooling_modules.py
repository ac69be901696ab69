"""The modules of pooling and unpooling, and how torch's tools see the operators."""

import pytest
import torch
from torch import nn

from nanops.errors import InputError
from nanops.functional import pooling, unpooling
from nanops.modules import pooling as pools
from nanops.modules import unpooling as unpools
from nanops.tolerance import EXACT
from tests.nanops.pooling_cases import numbers, same

KINDS = ("Aggressive", "Multi", "Hybrid")
NAMES = [f"{kind}MaxPool{dims}d" for kind in KINDS for dims in (1, 2, 3)]


def image(dims: int) -> torch.Tensor:
    return numbers((2, 3, 6, 7, 8)[: dims + 2], dims)


def function_of(name: str):
    return getattr(pooling, name.replace("MaxPool", "_max_pool").lower())


@pytest.mark.parametrize("name", NAMES)
def test_a_module_calls_its_function(name):
    dims = int(name[-2])
    x = image(dims)
    module = getattr(pools, name)(3, 2, 1, ceil_mode=True, tolerance=EXACT)
    for a, b in zip(module(x), function_of(name)(x, 3, 2, 1, 1, True, tolerance=EXACT), strict=True):
        assert same(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_windows_come_from_torchs_module(name):
    dims = int(name[-2])
    stock = getattr(nn, f"MaxPool{dims}d")(3, stride=1, padding=1, dilation=2, ceil_mode=True).eval()
    module = getattr(pools, name).from_torch(stock, tolerance=EXACT)
    assert (module.kernel_size, module.stride, module.padding, module.dilation) == (3, 1, 1, 2)
    assert module.ceil_mode
    assert module.tolerance == EXACT
    assert not module.training
    with pytest.raises(InputError, match=rf"^Expected a torch.nn.MaxPool{dims}d, got Linear.$"):
        getattr(pools, name).from_torch(nn.Linear(1, 1))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_unpooling_module_calls_its_function(dims):
    values, ties = getattr(pooling, f"multi_max_pool{dims}d")(image(dims), 2)
    f, cls = getattr(unpooling, f"conservative_max_unpool{dims}d"), getattr(unpools, f"ConservativeMaxUnpool{dims}d")
    size = image(dims).shape[2:]
    assert same(cls(2)(values, ties, size), f(values, ties, 2, output_size=size))
    stock = getattr(nn, f"MaxUnpool{dims}d")(2).eval()
    module = cls.from_torch(stock, overlap="value")
    assert (module.kernel_size, module.stride, module.padding) == (stock.kernel_size, stock.stride, stock.padding)
    assert module.overlap == "value"
    assert not module.training
    assert same(module(values, ties), f(values, ties, 2, overlap="value"))
    with pytest.raises(InputError, match=rf"^Expected a torch.nn.MaxUnpool{dims}d, got Linear.$"):
        cls.from_torch(nn.Linear(1, 1))


def test_modules_say_their_arguments():
    assert repr(pools.AggressiveMaxPool2d(2, max_ties=2)) == (
        "AggressiveMaxPool2d(2, stride=None, padding=0, dilation=1, ceil_mode=False, max_ties=2, "
        "tolerance=Tolerance(kind='absolute', value=1e-07))"
    )
    assert "max_ties" not in repr(pools.MultiMaxPool2d(2))
    assert repr(unpools.ConservativeMaxUnpool2d(2)) == (
        "ConservativeMaxUnpool2d(2, stride=None, padding=0, overlap='nan', dilation=1)"
    )


def test_max_ties_reaches_the_function_and_multi_has_none():
    x = torch.ones(1, 1, 2, 2)
    assert pools.AggressiveMaxPool2d(2)(x)[0].isnan().all()
    assert not pools.AggressiveMaxPool2d(2, max_ties=4)(x)[0].isnan().any()
    sentence = r"^Expected options among tolerance for MultiMaxPool2d, got \['max_ties'\]\.$"
    with pytest.raises(InputError, match=sentence):
        pools.MultiMaxPool2d(2, max_ties=4)


def test_hooks_fire():
    module, seen = pools.MultiMaxPool2d(2), []
    module.register_forward_hook(lambda m, args, output: seen.append(output))
    module(image(2))
    assert len(seen) == 1


class _Net(nn.Module):
    """A pooling and its unpooling around arithmetic, as in a network."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool = pools.HybridMaxPool2d(2), unpools.ConservativeMaxUnpool2d(2)
        self.aggressive = pools.AggressiveMaxPool2d(3, 2, 1)

    def forward(self, x):
        values, ties = self.pool(x)
        pooled, indices = self.aggressive(x)
        return self.unpool(values * 2, ties), pooled, indices


def assert_same(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        assert same(a, b)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_torch_compiles_a_network_as_one_graph(last):
    x = numbers((2, 5, 8, 10), 1)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    torch.compiler.reset()
    compiled = torch.compile(_Net(), fullgraph=True, backend="aot_eager")
    assert_same(compiled(x), _Net()(x))


def test_compiled_gradients_are_the_same():
    x = numbers((2, 5, 8, 10), 1, nans=0)
    found = []
    torch.compiler.reset()
    for net in (_Net(), torch.compile(_Net(), fullgraph=True, backend="aot_eager")):
        t = x.clone().requires_grad_()
        y, values, _ = net(t)
        (y.nansum() + values.nansum()).backward()
        found.append(t.grad)
    assert same(*found)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torch_traces_a_network():
    x = numbers((2, 5, 8, 10), 1)
    traced = torch.jit.trace(_Net(), x, check_trace=False)
    other = numbers((2, 5, 8, 10), 2)
    assert_same(traced(other), _Net()(other))


def test_fx_traces_a_network_into_calls_of_the_functions():
    graph = torch.fx.symbolic_trace(_Net())
    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert {pooling.hybrid_max_pool2d, pooling.aggressive_max_pool2d, unpooling.conservative_max_unpool2d} <= called
    x = numbers((2, 5, 8, 10), 3)
    assert_same(graph(x), _Net()(x))


def test_operators_keep_torchs_contract():
    x = numbers((2, 3, 6, 8), 1, nans=0).requires_grad_()
    pool = ((2, 2), (2, 2), (0, 0), (1, 1))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator in (torch.ops.nanops.max_pool_with_indices.default, torch.ops.nanops.max_pool_with_ties.default):
        torch.library.opcheck(operator, (x, *pool, False, 1, "absolute", 1e-7), test_utils=tests)
    values, ties = pooling.multi_max_pool2d(x.detach(), 2)
    torch.library.opcheck(torch.ops.nanops.max_unpool_with_ties.default,
                          (values.requires_grad_(), ties, *pool, None, True), test_utils=tests)  # fmt: skip
