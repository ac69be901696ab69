"""Images, windows and routes that the tests of pooling and unpooling share."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from nanops import kernels
from nanops.functional import pooling, unpooling
from nanops.tolerance import Tolerance

INF, NAN = float("inf"), float("nan")
ROUTES = ("avx512", "avx2", "torch")
FORMATS = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
SIGNED = {
    torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64,
}  # fmt: skip


def take(monkeypatch, route: str) -> None:
    """Let the operators take one route: a library, or torch's own operations."""
    if route != "torch" and (route not in kernels.names() or kernels.load(route) is None):
        pytest.skip(f"no kernels for {route}")
    found = None if route == "torch" else kernels.load(route)
    monkeypatch.setattr(kernels, "library", lambda: found)


@dataclass(frozen=True)
class Case:
    """How one image is pooled."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def dims(self) -> int:
        return len(self.size)

    @property
    def sizes(self) -> tuple:
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode

    def function(self, name: str):
        where = unpooling if "unpool" in name else pooling
        return getattr(where, f"{name}{self.dims}d")


def case(*size: int, kernel=2, stride=None, padding=0, dilation=1, ceil_mode=False, tolerance=None) -> Case:
    def each(v):
        return (v,) * len(size) if isinstance(v, int) else v

    step = each(kernel if stride is None else stride)
    return Case(size, each(kernel), step, each(padding), each(dilation), ceil_mode, tolerance or Tolerance())


# The shapes of the networks, and what is awkward about windows; wide enough for whole vectors and their rests.
TABLE = {
    "pairs": case(38, kernel=2),
    "pairs-odd": case(71, kernel=2),
    "squares": case(6, 70),
    "squares-narrow": case(8, 10),
    "squares-odd": case(5, 37),
    "squares-ceil": case(7, 35, ceil_mode=True),
    "cubes": case(4, 6, 36),
    "cubes-odd": case(5, 3, 7),
    "overlap": case(9, 37, kernel=3, stride=2, padding=1),
    "overlap-ceil": case(8, 20, kernel=3, stride=2, padding=1, ceil_mode=True),
    "dense": case(5, 21, kernel=3, stride=1, padding=1),
    "dilated": case(9, 40, kernel=(2, 3), stride=(1, 2), padding=(0, 1), dilation=(3, 2)),
    "gaps": case(9, 23, kernel=2, stride=3),
    "padded-pairs": case(6, 38, padding=1),
    "four-square": case(9, 20, kernel=4, stride=2, padding=2),
    "five-square": case(8, 19, kernel=5, stride=3),
    "eight-square": case(9, 40, kernel=8, stride=3, padding=4),
    "one": case(4, 18, kernel=1),
    "cubes-overlap": case(5, 6, 19, kernel=3, stride=2, padding=1),
    "ten": case(40, kernel=10, stride=4, padding=5),
}
TOLERANCES = {
    "paper": Tolerance(), "published": Tolerance("isclose", 1e-7), "exact": Tolerance("ulps", 0),
    "ulps": Tolerance("ulps", 3), "relative": Tolerance("relative", 0.25), "coarse": Tolerance("absolute", 0.3),
    "closed": Tolerance("absolute", 0.0),
}  # fmt: skip


def numbers(shape, seed: int, *, nans=0.2, step=0.5, dtype=torch.float32) -> torch.Tensor:
    """Numbers of few values, so that many tie, some a little apart; both zeros, infinities and NaN."""
    g = np.random.default_rng(seed)
    x = np.round(g.standard_normal(shape) / step) * step
    x[g.random(shape) < 0.1] *= 1 + 2.0**-22
    x[g.random(shape) < 0.1] += 1e-8
    x[g.random(shape) < 0.1] = -0.0
    x[g.random(shape) < 0.03] = INF
    x[g.random(shape) < 0.03] = -INF
    x[g.random(shape) < nans] = NAN
    return torch.from_numpy(x).to(dtype)


def clean(shape, seed: int, dtype=torch.float32) -> torch.Tensor:
    """The same without NaN."""
    return numbers(shape, seed, nans=0, dtype=dtype)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, the channels of a batch stored last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def bits(x: torch.Tensor) -> torch.Tensor:
    """The bit patterns, one for all NaNs."""
    if not x.is_floating_point():
        return x
    return torch.where(x.isnan(), x.new_tensor(NAN), x).contiguous().view(SIGNED[x.dtype])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and every bit, and in where they are NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and bool((bits(a) == bits(b)).all())


@st.composite
def cases(draw, most=9) -> Case:
    """Any small pooling that torch accepts."""
    dims = draw(st.integers(1, 3))
    most = min(most, 9 - 2 * dims)
    some = draw(st.lists(st.tuples(*(st.integers(1, n) for n in (3, 3, 3, most))), min_size=dims, max_size=dims))
    kernel, stride, dilation, extra = zip(*some, strict=True)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(
        max(1, d * (k - 1) + e - 2 * p) for d, k, e, p in zip(dilation, kernel, extra, padding, strict=True)
    )
    return Case(size, kernel, stride, padding, dilation, draw(st.booleans()),
                draw(st.sampled_from(list(TOLERANCES.values()))))  # fmt: skip
