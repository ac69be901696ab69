"""Is a sum exact, whatever the order of its additions? Then no rounding can perturb it.

A sum of integers, or of the products of an image of small integers and dyadic weights, is exact: all its terms are
multiples of 2^low, and no partial sum reaches 2^(low + t), where t is the precision.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mcaprobe.rounding import Arithmetic

_SAMPLE = 64
_FIELDS = {torch.float32: (torch.int32, 23, 0xFF, 150), torch.float64: (torch.int64, 52, 0x7FF, 1075)}


def exact_sums(
    arithmetic: Arithmetic, factors: tuple[Tensor, ...], bound: Callable[[], Tensor], start: Tensor | None = None
) -> Tensor | None:
    """Return where a sum of terms is proven exact, or None where nothing is.

    Args:
        factors: The terms, or the two factors of the products.
        bound: Gives the sum of the absolute values of the terms in at least their own precision, evaluated only where
            the factors have few enough bits.
        start: Value that the sum starts from, broadcastable to the sums.
    """
    if arithmetic.inbound or arithmetic.mode == "up_down" or not all(f.numel() for f in factors):
        return None  # these modes perturb exact operations too
    dtype = factors[0].dtype
    precision = arithmetic.bits(dtype)
    if sum(_bits(f.reshape(-1)[:: max(1, f.numel() // _SAMPLE)]) for f in factors) > precision + 1:
        return None
    spans = [_span(f) for f in factors]
    if sum(top - low for low, top in spans) > precision + 1:
        return None
    low = sum(low for low, _ in spans)
    smallest = 1 - _FIELDS[dtype][3] if dtype == torch.float32 else -1074
    start_low = low if start is None else min(low, _span(start)[0])
    if start_low < smallest:
        return None
    total = bound() if start is None else bound() + start.abs()
    # Below the limit each partial sum of the bound was exact itself.
    return total < 2.0 ** min(start_low + precision, 127 if dtype == torch.float32 else 1023)


def _bits(x: Tensor) -> int:
    """Return the largest number of significant bits of an element."""
    low, top = _exponents(x)
    return int((top - low).max()) if low.numel() else 0


def _span(x: Tensor) -> tuple[int, int]:
    """Return (low, top): every element is a multiple of 2^low and less than 2^top in absolute value."""
    low, top = _exponents(x)
    return (int(low.min()), int(top.max())) if low.numel() else (0, 0)


def _exponents(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exponents of the lowest set bit and of the next power of two, for the elements that are not 0."""
    integer, mantissa, mask, shift = _FIELDS[x.dtype]
    field = x.contiguous().view(integer).reshape(-1)
    biased = (field >> mantissa) & mask
    digits = (field & ((1 << mantissa) - 1)) + torch.where(biased > 0, 1 << mantissa, 0).to(integer)
    kept = digits != 0
    digits, unit = digits[kept], biased[kept].clamp(min=1) - shift
    lowest = torch.frexp((digits & -digits).double()).exponent - 1
    return lowest + unit, torch.frexp(digits.double()).exponent + unit
