"""Cases of the NaN convolution, the routes they can take, and what the slow twin says about them."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import cos, log, pi, prod, sin, sqrt

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from nanops import functional as F
from nanops import kernels
from nanops.functional import convolution_core
from tests.reference import convolution_twin as twin
from tests.reference.philox_twin import philox

INSTRUCTIONS = [name for name in kernels.names() if kernels.load(name) is not None]
ROUTES = [*INSTRUCTIONS, "torch"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
THRESHOLDS = [1 / 3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.0]
PATTERNS = ["none", "all", "iid", "pixels", "cluster", "unpool", "border", "row"]
CONV = {1: F.nan_conv1d, 2: F.nan_conv2d, 3: F.nan_conv3d}
TRANSPOSE = {1: F.nan_conv_transpose1d, 2: F.nan_conv_transpose2d, 3: F.nan_conv_transpose3d}
OWN_WARNING = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's
needs_kernels = pytest.mark.skipif(not INSTRUCTIONS, reason=f"no kernels: {kernels.absence()}")


@contextmanager
def on(route):
    """Run calls on one instruction set, or in torch operations."""
    with pytest.MonkeyPatch.context() as patch:
        library = None if route == "torch" else kernels.load(route)
        patch.setattr(kernels, "library", lambda: library)
        patch.setattr(convolution_core, "_announce", lambda: None)
        yield


@contextmanager
def threads(count):
    """Run torch, and the kernels, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_nan(x, pattern, seed=0, rate=0.5):
    """Return a copy of x, (N, C, *size), with NaN (and, after unpooling, zeros) in a pattern."""
    g, x = torch.Generator().manual_seed(seed), x.clone()
    one = (x.shape[0], 1, *x.shape[2:])
    if pattern == "all":
        x[:] = torch.nan
    elif pattern == "iid":
        x[torch.rand(x.shape, generator=g) < rate] = torch.nan
    elif pattern == "pixels":
        x[(torch.rand(one, generator=g) < rate).expand_as(x)] = torch.nan
    elif pattern == "cluster":
        half = tuple(slice(0, (s + 1) // 2) for s in x.shape[2:])
        x[(..., *half)] = torch.nan
        x[0, 0] = 0.5
    elif pattern == "unpool":
        x[torch.rand(x.shape, generator=g) < 0.75] = 0
        x[(x != 0) & (torch.rand(x.shape, generator=g) < rate)] = torch.nan
    elif pattern == "border":
        for axis in range(2, x.ndim):
            x.select(axis, 0)[:] = torch.nan
            x.select(axis, -1)[:] = torch.nan
    elif pattern == "row":
        x.select(2, x.shape[2] // 2)[:] = torch.nan
    return x


@dataclass(frozen=True)
class Case:
    """One call, and its answer by the twin."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: tuple
    padding: tuple | str
    dilation: tuple
    groups: int = 1
    threshold: float = 0.5
    fill: str = "mean"
    count_padding: bool = True
    output_padding: tuple | None = None  # of a transposed convolution, None for others
    sigma: float = 1e-3
    seed: int = 0

    @property
    def dims(self):
        return self.x.ndim - 2

    @property
    def transposed(self):
        return self.output_padding is not None

    def to(self, dtype):
        """Return the case with its tensors rounded to a dtype."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, x=self.x.to(dtype), weight=self.weight.to(dtype), bias=bias)

    def steps(self):
        """Return the arguments after the bias, in torch's order."""
        if self.transposed:
            return self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return self.stride, self.padding, self.dilation, self.groups

    def run(self, **options):
        """Return the operator's result and mask."""
        operator = (TRANSPOSE if self.transposed else CONV)[self.dims]
        own = {"threshold": self.threshold, "fill": self.fill, "count_padding": self.count_padding, "sigma": self.sigma}
        options = own | options
        if self.fill == "max_normal":
            options.setdefault("generator", torch.Generator().manual_seed(self.seed))
        return operator(self.x, self.weight, self.bias, *self.steps(), return_skipped=True, **options)

    def stock(self):
        """Return torch's own result."""
        name = f"conv{'_transpose' if self.transposed else ''}{self.dims}d"
        return getattr(torch.nn.functional, name)(self.x, self.weight, self.bias, *self.steps())

    def ends(self):
        """Return the padding before and after."""
        kernel = self.weight.shape[2:]
        if self.padding == "same":
            total = [d * (k - 1) for k, d in zip(kernel, self.dilation, strict=True)]
            return [t // 2 for t in total], [t - t // 2 for t in total]
        both = (0,) * self.dims if self.padding == "valid" else self.padding
        return both, both

    def answer(self, magnitudes=False):
        """Return the twin's result and mask; of the absolute values if `magnitudes`: a bound of every partial sum."""
        arrays = [None if t is None else t.double().numpy() for t in (self.x, self.weight, self.bias)]
        if magnitudes:
            arrays = [None if a is None else np.abs(a) for a in arrays]
        options = (self.groups, self.threshold, self.fill, self.count_padding)
        normals = (lambda *_: 6.0) if magnitudes or self.fill == "mean" else self.normals()
        if self.transposed:
            steps = self.stride, self.padding, self.output_padding, self.dilation
            return tuple(map(torch.from_numpy, twin.nan_conv_transpose(*arrays, *steps, *options, normals, self.sigma)))
        steps = self.stride, *self.ends(), self.dilation
        return tuple(map(torch.from_numpy, twin.nan_conv(*arrays, *steps, *options, normals, self.sigma)))

    def normals(self):
        """Return approach B's draws as a function of position and element, for the twin."""
        generator = torch.Generator().manual_seed(self.seed)
        key = tuple(torch.randint(1 << 32, (2,), generator=generator).tolist())
        out, channels = self.run()[1].shape[2:], self.x.shape[1] // self.groups

        def normal(position, element):
            _, group, *place = position
            channel, tap = element
            return draw(key, group, int(np.ravel_multi_index(place, out)), tap * channels + channel)

        return normal

    def products(self):
        """Return the multiply-adds of one output."""
        return prod(self.weight.shape[2:]) * (self.x.shape[1] // self.groups)

    def holds(self, y, skipped, uniform=False):
        """Check a result: torch's own where nothing is NaN; else the twin's mask, and values as exact as their sums.

        The bound is (2 K + 4) eps sum |w| |x| for windows of K values: K for the sum of the products, K for the mean,
        and the last roundings; and half a unit in the last place of a narrow dtype. With `uniform` also without NaN.
        """
        if not (uniform or self.x.isnan().any()):
            assert torch.equal(y, self.stock()) and not skipped.any()
            return
        expected, gone = self.answer()
        bound, _ = self.answer(magnitudes=True)
        assert y.shape == expected.shape and y.dtype == self.x.dtype and skipped.dtype == torch.bool
        assert torch.equal(skipped, gone)
        assert torch.equal(y.isnan(), expected.isnan())
        wide = torch.promote_types(y.dtype, torch.float32)
        narrow = torch.finfo(y.dtype)
        room = (2 * self.products() + 4) * torch.finfo(wide).eps * bound + narrow.eps * expected.abs()
        wrong = (y.double() - expected).abs() > room + narrow.smallest_normal
        assert not wrong.any(), (y.double()[wrong], expected[wrong])


def draw(key, group, place, element):
    """Return one of approach B's standard normal numbers."""
    part, quarter, lane = element // 64, element % 64 // 16, element % 16
    words = philox((group, place & 0xFFFFFFFF, part * 16 + lane, place >> 32), key)
    u, v = words[quarter // 2 * 2], words[quarter // 2 * 2 + 1]
    radius, angle = sqrt(-2 * log((u + 0.5) / 2**32)), 2 * pi * v / 2**32
    return radius * (sin(angle) if quarter % 2 else cos(angle))


def normal_numbers(*shape, seed=0):
    """Return normal numbers in float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def cases(draw, transposed=False, patterns=PATTERNS, fills=("mean", "max_normal")):
    """Draw any convolution of a small image, in float32."""
    dims = draw(st.sampled_from([1, 2, 2, 3]))
    most = {1: 9, 2: 6, 3: 4}[dims]

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    size, kernel, stride, dilation = each(1, most), each(1, 3), each(1, 3), each(1, 2)
    # From a few inputs on, taps of NaN only are left out of a window.
    groups, inputs, outputs = draw(st.sampled_from(
        [(1, 1, 1), (1, 3, 2), (1, 2, 17), (2, 2, 1), (3, 1, 1), (2, 1, 2), (1, 17, 9), (1, 32, 8), (2, 20, 3)]
    ))  # fmt: skip
    more = None
    if transposed:
        padding = each(0, 2)
        more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        # Nothing may be cut away entirely.
        least = [2 * p + 1 - d * (k - 1) - m for p, d, k, m in zip(padding, dilation, kernel, more, strict=True)]
        size = tuple(max(n, -(-(i - 1) // s) + 1) for n, i, s in zip(size, least, stride, strict=True))
    else:
        padding = draw(st.sampled_from(["same", "valid", "numbers", "numbers"]))
        if padding == "numbers":
            padding = each(0, 3)
        if padding == "same":
            stride = (1,) * dims
        extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        if padding != "same":
            both = [0] * dims if padding == "valid" else padding
            size = tuple(max(n, e - 2 * p, 1) for n, e, p in zip(size, extent, both, strict=True))
    seed, samples = draw(st.integers(0, 999)), draw(st.integers(1, 2))
    x = with_nan(
        normal_numbers(samples, groups * inputs, *size, seed=seed) * 2 + 1, draw(st.sampled_from(patterns)), seed,
        draw(st.sampled_from([0.1, 0.5, 0.9])),
    )  # fmt: skip
    shape = (groups * inputs, outputs) if transposed else (groups * outputs, inputs)
    weight = normal_numbers(*shape, *kernel, seed=seed + 1)
    bias = normal_numbers(groups * outputs, seed=seed + 2) if draw(st.booleans()) else None
    return Case(
        x, weight, bias, stride, padding, dilation, groups, draw(st.sampled_from(THRESHOLDS)),
        draw(st.sampled_from(fills)), draw(st.booleans()), more, seed=seed,
    )  # fmt: skip
