"""When are two activations equal? Absolutely, relatively, or within so many units in the last place."""

import ctypes
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from nanops.errors import InputError, nearest

KINDS = ("absolute", "relative", "ulps", "isclose")
_INTEGER = {
    torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How near a value must be to the largest of its window to tie with it.

    Args:
        kind: `absolute`, |w - max| < value (the paper's section 4); `relative`, |w - max| <= value |max|; `ulps`, at
            most `value` representable numbers of the input's dtype apart; `isclose`, |w - max| <= 1e-8 + value |max|,
            as the paper's published code has it.
        value: Not negative; a whole number for `ulps`.

    Raises:
        InputError: another kind, or such a value.
    """

    kind: str = "absolute"
    value: float = 1e-7

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            kinds, end = ", ".join(KINDS), nearest(self.kind, KINDS)
            raise InputError(f"Expected a tolerance of kind {kinds}, got {self.kind!r}{end}")
        if not 0 <= self.value < float("inf"):
            raise InputError(f"Expected a tolerance of 0 or more, got {self.value}.")
        if self.kind == "ulps" and self.value != int(self.value):
            raise InputError(f"Expected a whole number of ulps, got {self.value}.")

    @property
    def floor(self) -> float:
        """What `isclose` adds to its relative tolerance."""
        return 1e-8 if self.kind == "isclose" else 0.0

    def bound(self, dtype: torch.dtype) -> float:
        """Return the value as a number of a format.

        `absolute`: the least one that is not below it, so that "<" says in that format what it says of real numbers.
        """
        if dtype == torch.float64:
            return self.value
        near = ctypes.c_float(self.value).value
        if self.kind == "absolute" and near < self.value:
            near = struct.unpack("f", struct.pack("I", struct.unpack("I", struct.pack("f", near))[0] + 1))[0]
        return near

    def ties(self, values: Tensor, largest: Tensor) -> Tensor:
        """Return where `values` tie with `largest`, a boolean tensor of their common shape; NaN ties with nothing.

        Differences are taken in float32 or wider. A value that equals the largest, infinities too, always ties.
        """
        same = values == largest
        if self.kind == "ulps":
            a, b, most = _rank(values), _rank(largest), min(int(self.value), torch.iinfo(torch.int64).max)
            # Across zero the distance is a sum that may not fit into 64 bits.
            near = torch.where((a < 0) == (b < 0), (a - b).abs() <= most, a.abs() <= most - b.abs())
            return same | near & values.isfinite() & largest.isfinite()
        wide = torch.promote_types(values.dtype, torch.float32)
        w, m = values.to(wide), largest.to(wide)
        distance = (w - m).abs()
        if self.kind == "absolute":
            return same | (distance < self.bound(wide))
        return same | (distance <= self.floor + self.bound(wide) * m.abs()) & w.isfinite() & m.isfinite()


PAPER = Tolerance("absolute", 1e-7)
PUBLISHED_CODE = Tolerance("isclose", 1e-7)
EXACT = Tolerance("ulps", 0)


def _rank(x: Tensor) -> Tensor:
    """Return the number of representable values between 0 and x, with its sign, in int64."""
    integer = x.view(_INTEGER[x.dtype]).to(torch.int64)
    magnitude = integer & torch.iinfo(_INTEGER[x.dtype]).max
    return torch.where(integer < 0, -magnitude, magnitude)
