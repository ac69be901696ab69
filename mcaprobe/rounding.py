"""To which neighbour does an inexact result go? Random rounding of tensors, in every mode.

A result is given as its nearest floating-point number and the residual: exact value minus that number. Exact results
(residual 0) stay unchanged, except in mode `up_down`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, prod, sqrt

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.streams import Stream

NEAREST = "nearest"  # no perturbation: IEEE arithmetic by the same operations
MODES = ("random", "nearness", "up_down", "rr", "pb", "full")
MANTISSA = {torch.float32: 24, torch.float64: 53}
_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}
_BLOCK = 1 << 15  # elements handled at once, so that the temporaries stay in the cache


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How every inexact result is perturbed.

    Args:
        mode: `random` (CESTAC; Févotte & Lathuilière 2016): the float below or above, probability 1/2 each.
            `nearness` (stochastic rounding; Croci et al. 2022): probability proportional to nearness.
            `up_down` (PRISM): one unit in the last place up or down, exact results other than 0 too.
            `rr`, `pb`, `full` (Parker 1997): Monte Carlo arithmetic on the result, on the operands, on both.
        precision: virtual precision t in bits for `rr`, `pb`, `full`; None for the precision of the tensor.
    """

    mode: str = "random"
    precision: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES and self.mode != NEAREST:
            raise InputError(f"Expected a mode among {', '.join(MODES)}, got {self.mode!r}.")
        if self.precision is not None and not self.monte_carlo:
            raise InputError(f"Expected a precision only with the modes rr, pb and full, got mode {self.mode!r}.")
        if self.precision is not None and not 1 <= self.precision <= 53:
            raise InputError(f"Expected a virtual precision of 1 to 53 bits, got {self.precision}.")

    @property
    def monte_carlo(self) -> bool:
        return self.mode in ("rr", "pb", "full")

    @property
    def outbound(self) -> bool:
        """Whether results are perturbed."""
        return self.mode != "pb"

    @property
    def inbound(self) -> bool:
        """Whether operands are perturbed."""
        return self.mode in ("pb", "full")

    def bits(self, dtype: torch.dtype) -> int:
        """Return the virtual precision that a tensor of this dtype gets."""
        return min(self.precision or MANTISSA[dtype], MANTISSA[dtype])

    def noise_variance(self, dtype: torch.dtype) -> float:
        """Return the variance of one application of Monte Carlo noise, in squared ulps of `dtype`."""
        return 4.0 ** (MANTISSA[dtype] - self.bits(dtype)) / 12

    def step_variance(self, dtype: torch.dtype, perturbed: bool) -> float:
        """Return the mean variance that one rounding adds to an accumulation, in squared ulps.

        The residual of a step is uniform over an ulp. Where the operands are the same in all samples it is fixed, and
        `random` has variance 1/4 around a fixed centre; where they vary it varies too and adds up to 1/12.
        """
        if self.mode == NEAREST:
            return 0.0
        if self.mode == "random":
            return 0.30 if perturbed else 0.25
        if self.mode == "nearness":
            return 1 / 6
        if self.mode == "up_down":
            return 1.0
        applications = self.outbound + self.inbound
        return applications * self.noise_variance(dtype) + 1 / 12


def blocks(shape: Sequence[int], limit: int = _BLOCK) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices that cut a tensor of this shape, in contiguous order, into pieces that fit the cache."""
    if prod(shape) <= limit:
        yield (slice(None),) * len(shape)
        return
    inner = prod(shape[1:])
    if inner <= limit:
        rows = max(1, limit // max(inner, 1))
        yield from ((slice(start, start + rows),) for start in range(0, shape[0], rows))
        return
    for i in range(shape[0]):
        yield from ((i, *rest) for rest in blocks(shape[1:], limit))


def block_limit(device: torch.device) -> int:
    """Return how many elements to handle at once: what a processor's cache holds, or what keeps a GPU busy."""
    return _BLOCK if device.type == "cpu" else 1 << 24


def blockwise(function: Callable[..., Tensor], dtype: torch.dtype, *tensors: Tensor) -> Tensor:
    """Return function(*tensors), evaluated in blocks, for elementwise functions of tensors that broadcast."""
    operands = torch.broadcast_tensors(*tensors)
    out = torch.empty(operands[0].shape, dtype=dtype, device=operands[0].device)
    for index in blocks(out.shape, block_limit(out.device)):
        out[index] = function(*(t[index] for t in operands))
    return out


def round_pair(value: Tensor, residual: Tensor, arithmetic: Arithmetic, stream: Stream) -> Tensor:
    """Return the perturbed rounding of `value + residual`.

    Args:
        value: Nearest floating-point number to the exact result, float32 or float64, any shape.
        residual: Exact result minus `value`, same shape, any precision, at most half an ulp.
    """
    if arithmetic.mode in ("pb", NEAREST):
        return value
    if arithmetic.monte_carlo:
        return _add_noise(value, residual, arithmetic.bits(value.dtype), stream)
    if arithmetic.mode == "up_down":
        step = stream.coin(value.numel()).view(value.shape).to(_INTEGER[value.dtype]) * 2 - 1
        return _step(value, torch.where((value != 0) & value.isfinite(), step, 0))
    value, towards = _direction(value, residual)
    if arithmetic.mode == "random":
        return _step(value, towards * stream.coin(value.numel()).view(value.shape))
    gap = (_step(value, towards).double() - value.double()).abs()
    moved = stream.uniform(value.numel()).view(value.shape) * gap < residual.abs()
    return _step(value, towards * moved)


def round_wide(
    wide: Tensor, dtype: torch.dtype, arithmetic: Arithmetic, stream: Stream, low: Tensor | None = None
) -> Tensor:
    """Return the perturbed rounding to `dtype` of the float64 tensor `wide`, plus `low` where double lost something."""
    value = wide.to(dtype)
    residual = wide - value
    return round_pair(value, residual if low is None else residual + low, arithmetic, stream)


def _direction(value: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the step, +1, -1 or 0 in the integer order of its bits, that leads towards the residual."""
    integer = _INTEGER[value.dtype]
    if bool(((value == 0) & (residual != 0)).any()):
        # Underflow: a zero of the residual's sign, so that one step leads to the smallest denormal on its side.
        value = torch.where(value == 0, torch.zeros_like(value).copysign(residual.to(value.dtype)), value)
    towards = (residual > 0).to(integer) - (residual < 0).to(integer)
    return value, torch.where(torch.signbit(value), -towards, towards)


def _step(value: Tensor, steps: Tensor) -> Tensor:
    return (value.view(_INTEGER[value.dtype]) + steps).view(value.dtype)


def _add_noise(value: Tensor, residual: Tensor, bits: int, stream: Stream) -> Tensor:
    """Return value + residual + 2^(e - bits) xi, rounded to nearest; unchanged where it is exact in `bits` bits.

    e is the exponent of the exact result: just below a power of two, or where the result underflows to zero, it is
    smaller than that of `value`.
    """
    wide = value.double()
    noise, scale = _monte_carlo_noise(_inside(wide, residual.double()), bits, stream)
    lattice = wide / scale
    exact = (residual == 0) & ((lattice == lattice.round()) | (value == 0)) | ~value.isfinite()
    if value.dtype == torch.float64:
        noisy = value + (residual + noise)
    else:
        noisy = ((value.double() + residual) + noise).to(value.dtype)
    return torch.where(exact, value, noisy)


def _inside(wide: Tensor, residual: Tensor) -> Tensor:
    """Return a number with the exponent of wide + residual, which double itself may round up to a power of two."""
    total = wide + residual
    nearer_zero = (residual != 0) & (torch.signbit(residual) != torch.signbit(wide)) & (total == wide)
    return torch.where(nearer_zero, torch.nextafter(wide, torch.zeros_like(wide)), total)


def _monte_carlo_noise(wide: Tensor, bits: int, stream: Stream) -> tuple[Tensor, Tensor]:
    """Return Parker's noise 2^(e - bits) xi, xi uniform on (-1/2, 1/2), and its scale."""
    exponent = torch.frexp(wide).exponent
    scale = torch.ldexp(torch.ones_like(wide), exponent - bits)
    return (stream.uniform(wide.numel()).view(wide.shape).double() + 2.0**-25 - 0.5) * scale, scale


def perturb_operand(x: Tensor, bits: int, stream: Stream) -> Tensor:
    """Return a float64 copy of the operand with inbound noise; 0, inf and NaN get none (Parker 1997)."""
    wide = x.double()
    noise, _ = _monte_carlo_noise(wide, bits, stream)
    return torch.where((wide == 0) | ~wide.isfinite(), wide, wide + noise)


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its exact error (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return float64 numbers as sums of two numbers of at most 26 bits each (Dekker 1971)."""
    high = x * 134217729.0
    high = high - (high - x)
    return high, x - high


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded product of float64 tensors and its exact error (Dekker 1971)."""
    product = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def relative_unit(dtype: torch.dtype) -> float:
    """Return the root-mean-square of ulp(x)/|x| over a logarithmically uniform x: 1.4710 x 2^-24 in float32."""
    return sqrt(0.75 / (2 * log(2))) * 2.0 ** (1 - MANTISSA[dtype])
