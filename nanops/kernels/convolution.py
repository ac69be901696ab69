"""The compiled NaN convolution: its arguments, and when it can be called."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Self

import torch
from torch import Tensor

from nanops import kernels
from nanops.kernels.geometry import FIELDS, fill
from nanops.rule import Rule
from nanops.windows import Windows

_INSETS = (0, 1 / 32, 1 / 16, 1 / 8)
UNIFORM_BIT = 20  # of the counts, see convolution.h
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_I64, _PTR = ctypes.c_int64, ctypes.c_void_p


class _Convolution(ctypes.Structure):
    _fields_ = (
        *((name, _PTR) for name in ("x", "weight", "bias", "y", "pixels", "windows", "least", "background")),
        *((name, _PTR) for name in ("slope", "mean", "variance", "gamma", "beta", "other")),
        ("strides", _I64 * 3),
        *((name, _I64) for name in ("n", "channels", "outputs", "groups")),
        *FIELDS,
        ("count_padding", _I64), ("fill", _I64), ("x_first", _I64), ("y_first", _I64),
        ("slopes", _I64), ("rectified", _I64), ("sigma", ctypes.c_float), ("epsilon", ctypes.c_float),
        ("key", ctypes.c_uint32 * 2), ("threads", ctypes.c_uint32), ("found", _I64 * 4),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Around:
    """What is done with a convolution's input and output in the same call; all tensors float32 and without gaps.

    Args:
        slope: Of an activation of the input where it is not positive, one number or one a channel; one group and two
            spatial axes only.
        rectified: Whether the activation is 0 there; `slope` then is any tensor of one number.
        norm: Running mean, running variance, weight and bias (or None) of a batch norm of the output, and its epsilon.
        other: Like the output, channels last: the larger one of both is the result, NaN where one of them is.
    """

    slope: Tensor | None = None
    rectified: bool = False
    norm: tuple[Tensor, Tensor, Tensor | None, Tensor | None, float] | None = None
    other: Tensor | None = None

    def enter(self, s: _Convolution) -> None:
        """Write it into the kernel's arguments."""
        if self.slope is not None:
            s.slope, s.slopes, s.rectified = self.slope.data_ptr(), self.slope.numel(), int(self.rectified)
        if self.norm is not None:
            *vectors, s.epsilon = self.norm
            for name, vector in zip(("mean", "variance", "gamma", "beta"), vectors, strict=True):
                setattr(s, name, None if vector is None else vector.data_ptr())
        if self.other is not None:
            s.other = self.other.data_ptr()


NOTHING_AROUND = Around()


@dataclass(frozen=True, slots=True)
class Found:
    """What a survey counted in the whole batch: NaNs, and windows by what becomes of them."""

    nans: int
    skipped: int
    partial: int
    uniform: int


def worthwhile(found: Sequence[Found], windows: int) -> bool:
    """Return whether the kernel is to run, for NaNs or a quarter of all windows that are uniform: else torch is faster.

    Args:
        found: Of the parts of one call.
        windows: Of all parts together.
    """
    return any(f.nans for f in found) or 4 * sum(f.uniform for f in found) >= windows


def serves(x: Tensor) -> bool:
    """Return whether the kernel can take a tensor like x."""
    return x.device.type == "cpu" and x.dtype in _DTYPES and kernels.library() is not None


def any_nan(x: Tensor) -> bool:
    """Return whether a tensor holds NaN."""
    return _dense_nan(x) if read_by_kernel(x) else bool(x.isnan().any())


def read_by_kernel(x: Tensor) -> bool:
    """Return whether a kernel can look for NaN in a tensor: float32 without gaps, on the processor."""
    ordinary = type(x) in (Tensor, torch.nn.Parameter) and x.dtype == torch.float32 and x.device.type == "cpu"
    dense = x.is_contiguous() or (x.dim() > 1 and _last(x).is_contiguous())
    return ordinary and dense and kernels.library() is not None


def _dense_nan(x: Tensor) -> bool:
    """Return whether a tensor without gaps, float32 and on the processor, holds NaN."""
    return bool(kernels.required().nan_any(_PTR(x.data_ptr()), _I64(x.numel()), _I64(torch.get_num_threads())))


@lru_cache(maxsize=64)
def _near_corners(size: tuple[int, ...]) -> Tensor:
    """Return where the pixels on the diagonals near the corners of an image lie, counted from its first one."""
    inset = [[int(s * n) for s in _INSETS] for n in size]
    at = [torch.tensor([*i, *(n - 1 - k for k in i)]) for i, n in zip(inset, size, strict=True)]
    near = torch.tensor(list(product((0, 1), repeat=len(at)))) * len(_INSETS)  # each corner, its first index
    chosen = (near[:, None] + torch.arange(len(_INSETS))[:, None]).flatten(0, 1)
    places = [a[k] for a, k in zip(at, chosen.unbind(1), strict=True)]
    flat = torch.zeros_like(places[0])
    for place, n in zip(places, size, strict=True):
        flat = flat * n + place
    return flat.unique()


def _last(x: Tensor) -> Tensor:
    """Return a view of x with its channels last."""
    return x.movedim(1, -1)


def structure(windows: Windows, n: int, channels: int, outputs: int, groups: int, rule: Rule) -> _Convolution:
    """Return the kernel's arguments without the pointers."""
    s = _Convolution()
    s.n, s.channels, s.outputs, s.groups = n, channels, outputs, groups
    fill(s, windows, windows.counts)
    s.count_padding, s.fill = int(rule.count_padding), int(rule.fill == "max_normal")
    s.sigma, s.threads = rule.sigma, torch.get_num_threads()
    return s


@dataclass(frozen=True, slots=True)
class Direct:
    """A call of the kernel that does all at once, on tensors of given shapes.

    Args:
        shape: Of the result.
        fields: Of the kernel's arguments, all but the pointers to tensors.
        least: What one of them points to.
    """

    shape: tuple[int, ...]
    fields: bytes
    least: Tensor

    @classmethod
    def of(
        cls, windows: Windows, x: tuple[int, ...], weight: tuple[int, ...], strides: tuple[int, ...], groups: int,
        rule: Rule,
    ) -> Self | None:  # fmt: skip
        """Return the call for tensors of these shapes; None where the kernel cannot read such a weight.

        Args:
            strides: Of the weight.
        """
        steps = _strides(weight, strides)
        if steps is None:
            return None
        s = structure(windows, x[0], x[1], weight[0], groups, rule)
        least = rule.least(weight[1], windows.taps)
        s.least, s.strides[:] = least.data_ptr(), steps
        return cls((x[0], weight[0], *windows.counts), bytes(s), least)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, last: torch.memory_format) -> Tensor | None:
        """Return the result in a format, or None if no number of x is NaN.

        Args:
            x: In float32, without gaps, contiguous or channels last.
        """
        if not _dense_nan(x):
            return None
        y = torch.empty(self.shape, memory_format=last)  # not before: stock needs the place in the cache
        s = _Convolution.from_buffer_copy(self.fields)
        s.x_first, s.y_first = x.is_contiguous(), y.is_contiguous()
        s.x, s.weight, s.y = x.data_ptr(), weight.data_ptr(), y.data_ptr()
        s.bias = None if bias is None else bias.data_ptr()
        s.threads = torch.get_num_threads()
        kernels.required().nan_convolve_alone(ctypes.byref(s))
        return y


class Job:
    """One call of the kernel: survey first, then convolve.

    Args:
        x: (N, C, *size), one of the dtypes that the kernel serves.
        weight: (O, C / groups, *kernel).
    """

    def __init__(
        self, x: Tensor, weight: Tensor, windows: Windows, groups: int, rule: Rule, key: tuple[int, int]
    ) -> None:
        library = kernels.required()
        self._library, self._rule, self._windows = library, rule, windows
        self._x = _last(x).to(torch.float32).contiguous()
        self._weight = weight.detach().to(torch.float32)
        n, outputs = x.shape[0], weight.shape[0]
        self._out = windows.counts
        self.pixels = torch.empty((n, groups, *windows.size), dtype=torch.int32)
        pointwise = windows.taps == 1 and self._out == windows.size and not any(windows.before)
        self.counts = self.pixels if pointwise else torch.empty((n, groups, *self._out), dtype=torch.int32)
        self._least = rule.least(weight.shape[1], windows.taps)
        counted = weight.shape[1] * windows.taps < 1 << UNIFORM_BIT  # NaNs leave room for the uniform pixels
        self._background = self._frequent() if rule.uniform and counted else None
        s = self._struct = structure(windows, n, x.shape[1], outputs, groups, rule)
        s.x, s.pixels, s.windows = self._x.data_ptr(), self.pixels.data_ptr(), self.counts.data_ptr()
        s.least = self._least.data_ptr()
        s.background = None if self._background is None else self._background.data_ptr()
        s.key = (ctypes.c_uint32 * 2)(*key)
        library.nan_survey(ctypes.byref(s))
        self.found = Found(*s.found)

    def _frequent(self) -> Tensor | None:
        """Return each sample's background vector, (N, C): the most frequent, bit for bit, of pixels near its corners.

        They lie on the diagonals, at these shares of the size from the corner: behind padded convolutions the outermost
        pixels are no background. None where some sample has no two equal ones.
        """
        n, *size, channels = self._x.shape
        places, background = _near_corners(tuple(size)), torch.empty((n, channels))
        votes = self._library.nan_background(
            _PTR(self._x.data_ptr()), _I64(n), _I64(prod(size)), _I64(channels), _PTR(places.data_ptr()),
            _I64(len(places)), _PTR(background.data_ptr()),
        )  # fmt: skip
        return background if votes >= 2 else None

    @property
    def skipped(self) -> Tensor:
        """Where a window is skipped, boolean, (N, groups, *out)."""
        counts = self.counts if self._background is None else self.counts & ((1 << UNIFORM_BIT) - 1)
        if self._rule.count_padding:
            return counts >= int(self._least[-1])
        inside = self._windows.inside().flatten()
        return counts >= self._least[inside].reshape(self._out)

    @property
    def uniform(self) -> Tensor:
        """Where a window got the known output, boolean, (N, groups, *out)."""
        if self._background is None:
            return torch.zeros_like(self.counts, dtype=torch.bool)
        return (self.counts >> UNIFORM_BIT == self._windows.taps) & ~self.skipped

    def convolve(self, bias: Tensor | None, dtype: torch.dtype, around: Around = NOTHING_AROUND) -> Tensor:
        """Return the result, (N, O, *out), its channels last in memory."""
        s, weight = self._struct, self._weight
        steps = _strides(tuple(weight.shape), weight.stride())
        if steps is None:
            weight = weight.contiguous()
            steps = weight.stride(0), weight.stride(1), 1
        b = None if bias is None else bias.detach().to(torch.float32).contiguous()
        y = torch.empty((s.n, *self._out, s.outputs))
        s.weight, s.bias, s.y = weight.data_ptr(), None if b is None else b.data_ptr(), y.data_ptr()
        s.strides[:] = steps
        around.enter(s)
        self._library.nan_convolve(ctypes.byref(s))
        return y.movedim(-1, 1).to(dtype)


def _strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return how far an output, an input and a tap of a weight are from the next; None where taps are not evenly so."""
    step = strides[-1]
    for size, inner, outer in zip(shape[:2:-1], strides[:2:-1], strides[-2:1:-1], strict=True):
        if outer != size * inner:
            return None
    return strides[0], strides[1], step
