"""Who looks on from a dispatch mode sees torch's own operators, and the result is the same."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import nanops
from nanops import Tolerance
from nanops import functional as F
from nanops.conversion.place import may_hold_nan
from tests.nanops.convolutions import with_nan
from tests.nanops.nets import Functional, Modules, image, seeded

LAST = torch.channels_last


class Taking(TorchDispatchMode):
    """Remembers every operator that is called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func._schema.name)
        assert func.namespace != "nanops"
        return func(*args, **(kwargs or {}))


def images(dtype=torch.float32, n=2, channels=4, size=12):
    x = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(5), dtype=dtype)
    x[:, :, :4] = 0.25  # ties
    return x


POOLS = {
    "indices": lambda x: F.aggressive_max_pool2d(x, 3, 2, 1, tolerance=Tolerance("ulps", 2)),
    "ties": lambda x: F.multi_max_pool2d(x, 2),
    "relative": lambda x: F.multi_max_pool2d(x, 2, ceil_mode=True, tolerance=Tolerance("relative", 1e-3)),
    "hybrid": lambda x: F.hybrid_max_pool2d(x, 2, max_ties=2),
    "one image": lambda x: F.multi_max_pool2d(x[0], 2)[0:2],
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST], ids=["contiguous", "last"])
@pytest.mark.parametrize("pattern", ["none", "iid", "pixels", "all"])
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_is_that_of_torchs_operations(name, pattern, layout):
    x = with_nan(images(), pattern).contiguous(memory_format=layout)
    expected = POOLS[name](x)
    with Taking() as mode:
        found = POOLS[name](x)
    assert "aten::where" in mode.seen
    for y, own in zip(found, expected, strict=True):
        torch.testing.assert_close(y, own, rtol=0, atol=0, equal_nan=True)
        assert y.stride() == own.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST], ids=["contiguous", "last"])
@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (2, 1)])
def test_an_unpool_is_that_of_torchs_operations(kernel, stride, layout):
    x = images().contiguous(memory_format=layout)
    values, ties = F.multi_max_pool2d(x, kernel, stride)
    expected = F.conservative_max_unpool2d(values, ties, kernel, stride)
    with Taking() as mode:
        found = F.conservative_max_unpool2d(values, ties, kernel, stride)
    assert "aten::index_put_" in mode.seen
    assert expected.isnan().any()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.stride() == expected.stride()


CONVOLUTIONS = {
    "plain": (F.nan_conv2d, (6, 4, 3, 3), {"padding": 1}),
    "strided groups": (F.nan_conv2d, (6, 2, 3, 3), {"stride": 2, "groups": 2, "threshold": 0.4}),
    "image only": (F.nan_conv2d, (6, 4, 3, 3), {"padding": 1, "count_padding": False, "threshold": 1.0}),
    "one by one": (F.nan_conv2d, (6, 4, 1, 1), {}),
    "uniform": (F.nan_conv2d, (6, 4, 3, 3), {"padding": 1, "uniform": True}),
    "transposed": (F.nan_conv_transpose2d, (4, 6, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pattern", ["none", "iid", "pixels", "cluster", "all"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_that_of_torchs_operations(name, pattern, dtype):
    function, shape, options = CONVOLUTIONS[name]
    g = torch.Generator().manual_seed(9)
    weight, bias = torch.randn(shape, generator=g, dtype=dtype), torch.randn(6, generator=g, dtype=dtype)
    x = with_nan(images(dtype), pattern)
    expected, skipped = function(x, weight, bias, return_skipped=True, **options)
    with Taking() as mode:
        found, where = function(x, weight, bias, return_skipped=True, **options)
    assert {"aten::convolution", "aten::conv2d"} & set(mode.seen)
    assert torch.equal(where, skipped)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=64 * unit, atol=256 * unit, equal_nan=True)


def test_no_sum_of_a_float32_convolution_is_wider():
    x, weight = with_nan(images(), "iid"), torch.randn(6, 4, 3, 3)
    wide = []

    class Looking(Taking):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            y = super().__torch_dispatch__(func, types, args, kwargs)
            if isinstance(y, torch.Tensor) and y.dtype == torch.float64:
                wide.append(func._schema.name)
            return y

    with Looking():
        F.nan_conv2d(x, weight)
    # The comparison with the threshold is made in float64, which rounds nothing.
    assert not {"aten::sum", "aten::conv2d", "aten::convolution", "aten::div", "aten::sub"} & set(wide)


@pytest.mark.parametrize("pooling", ["conservative", "aggressive", "hybrid", None])
@pytest.mark.parametrize("kind", [Modules, Functional])
def test_a_dispatch_mode_sees_the_operators_of_a_converted_model(kind, pooling):
    converted, x = nanops.convert(seeded(kind()), pooling), image()
    with torch.inference_mode():
        expected = converted(x)
        with Taking() as mode:
            found = converted(x)
    # Of each convolution one of what is valid and one of where NaN is, and boxes that count and add.
    assert sum(name in ("aten::conv2d", "aten::convolution") for name in mode.seen) == 12
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_dispatch_mode_sees_the_layers_that_are_one_call_otherwise():
    """Activation, convolution and norm, channels last, in inference: a chain, which goes to the kernel at once."""
    model = seeded(nn.Sequential(nn.PReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)))
    x = with_nan(images(), "pixels").contiguous(memory_format=LAST)
    converted = nanops.convert(model, final="keep")
    with torch.inference_mode():
        expected = converted(x)
        with Taking() as mode:
            found = converted(x)
    assert sum(name in ("aten::conv2d", "aten::convolution") for name in mode.seen) == 4
    assert any("batch_norm" in name for name in mode.seen) and any("prelu" in name for name in mode.seen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_under_a_dispatch_mode_any_tensor_may_hold_nan():
    """Of runs that are carried at once one may have a NaN and another none."""
    x = torch.zeros(3)
    assert not may_hold_nan(x)
    with Taking():
        assert may_hold_nan(x)


@pytest.mark.parametrize("kind", [Modules, Functional])
def test_a_look_for_nan_is_no_call_of_the_model(kind):
    class Names(torch.overrides.TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.names = set()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.names.add(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    converted, x = nanops.convert(seeded(kind()).double()), image().double()
    with torch.inference_mode(), Names() as mode:
        y = converted(x)
    assert not y.isnan().any() and "batch_norm" in mode.names
    assert not {"isnan", "sum", "where"} & mode.names


def test_what_is_skipped_under_a_dispatch_mode_is_counted():
    converted, x = nanops.convert(seeded(Modules())), image()
    with nanops.count_skipped(converted) as expected:
        converted(x)
    with nanops.count_skipped(converted) as found, Taking():
        converted(x)
    assert expected.total.skipped > 0
    assert [t.skipped for t in found.layers.values()] == [t.skipped for t in expected.layers.values()]
