"""The compiled NaN convolution: its arguments, and when it can be called."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from nanops import kernels
from nanops.kernels.geometry import FIELDS, fill
from nanops.rule import Rule
from nanops.windows import Windows

UNIFORM_BIT = 20  # of the counts, see convolution.h
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_I64, _PTR = ctypes.c_int64, ctypes.c_void_p


class _Convolution(ctypes.Structure):
    _fields_ = (
        *((name, _PTR) for name in ("x", "weight", "bias", "y", "pixels", "windows", "least", "background")),
        ("strides", _I64 * 3),
        *((name, _I64) for name in ("n", "channels", "outputs", "groups")),
        *FIELDS,
        ("count_padding", _I64), ("fill", _I64), ("sigma", ctypes.c_float), ("key", ctypes.c_uint32 * 2),
        ("threads", ctypes.c_uint32), ("found", _I64 * 4),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What a survey counted in the whole batch: NaNs, and windows by what becomes of them."""

    nans: int
    skipped: int
    partial: int
    uniform: int


def serves(x: Tensor) -> bool:
    """Return whether the kernel can take a tensor like x."""
    return x.device.type == "cpu" and x.dtype in _DTYPES and kernels.library() is not None


def any_nan(x: Tensor) -> bool:
    """Return whether a tensor holds NaN."""
    library = kernels.library()
    dense = x.is_contiguous() or _last(x).is_contiguous()
    if library is None or x.device.type != "cpu" or x.dtype != torch.float32 or not dense:
        return bool(x.isnan().any())
    return bool(library.nan_any(_PTR(x.data_ptr()), _I64(x.numel()), _I64(torch.get_num_threads())))


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
        self._background = self._corners() if rule.uniform and counted else None
        s = self._struct = structure(windows, n, x.shape[1], outputs, groups, rule)
        s.x, s.pixels, s.windows = self._x.data_ptr(), self.pixels.data_ptr(), self.counts.data_ptr()
        s.least = self._least.data_ptr()
        s.background = None if self._background is None else self._background.data_ptr()
        s.key = (ctypes.c_uint32 * 2)(*key)
        library.nan_survey(ctypes.byref(s))
        self.found = Found(*s.found)

    def _corners(self) -> Tensor | None:
        """Return each sample's background vector, (N, C): the most frequent corner pixel, bit for bit.

        None where some sample has no two equal corners.
        """
        x = self._x
        for axis, size in enumerate(x.shape[1:-1], start=1):
            x = x.index_select(axis, torch.tensor([0, size - 1] if size > 1 else [0]))
        corners = x.flatten(1, -2).view(torch.int32)
        if corners.shape[1] < 2:
            return None
        votes = (corners[:, :, None] == corners[:, None]).all(-1).sum(-1)
        most, which = votes.max(1)
        if int(most.min()) < 2:
            return None
        return corners[torch.arange(len(which)), which].view(torch.float32).contiguous()

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

    def convolve(self, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the result, (N, O, *out), its channels last in memory."""
        s, weight = self._struct, _flat(self._weight)
        b = None if bias is None else bias.detach().to(torch.float32).contiguous()
        y = torch.empty((s.n, *self._out, s.outputs))
        s.weight, s.bias, s.y = weight.data_ptr(), None if b is None else b.data_ptr(), y.data_ptr()
        s.strides[:] = weight.stride()
        self._library.nan_convolve(ctypes.byref(s))
        return y.movedim(-1, 1).to(dtype)


def _flat(weight: Tensor) -> Tensor:
    """Return the weight as (O, C, taps), a view where its memory allows one stride between taps."""
    try:
        return weight.view(*weight.shape[:2], -1)
    except RuntimeError:
        return weight.contiguous().flatten(2)
