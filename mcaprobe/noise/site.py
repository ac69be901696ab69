"""Where does a perturbation happen? One operator call of one sample, and its elementary operations."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mcaprobe.noise.deviations import Deviations
from mcaprobe.rounding import (
    MANTISSA,
    Arithmetic,
    blockwise,
    perturb_operand,
    round_pair,
    round_wide,
    two_product,
    two_sum,
)
from mcaprobe.streams import Stream

Operand = Tensor | float


@dataclass(slots=True)
class Site:
    """One operator call in one sample: the arithmetic, its random stream, and whether its operands vary.

    Every method broadcasts its operands and returns a tensor of their dtype (float32 or float64), each element rounded
    once as the mode says.
    """

    arithmetic: Arithmetic
    stream: Stream
    perturbed: bool
    deviations: Deviations = field(default_factory=Deviations)

    def wide(self, function: Callable[..., Tensor], *operands: Operand) -> Tensor:
        """Return one rounding of `function` evaluated in float64.

        For float64 operands no wider format is at hand: the result counts as inexact, its residual as uniform over
        an ulp, unless it is 0 or operands and result are whole numbers (exp(0), log(1), 3^2).
        """
        dtype = common_dtype(operands)

        def block(*parts: Tensor) -> Tensor:
            value = function(*(self._widen(p, dtype) for p in parts))
            if dtype == torch.float32:
                return round_wide(value, dtype, self.arithmetic, self.stream)
            whole = torch.stack([p == p.round() for p in parts]).all(0)
            return self._round_unknown(value, whole)

        return blockwise(block, dtype, *self._tensors(operands, dtype))

    def add(self, a: Operand, b: Operand) -> Tensor:
        """Return a + b, one rounding."""

        def block(x: Tensor, y: Tensor) -> Tensor:
            if self.arithmetic.inbound:
                return self._pair(two_sum(self._widen(x, dtype), self._widen(y, dtype)), dtype)
            # The error of an addition is a number of the same format, so that float32 needs no wider one.
            total, error = two_sum(x.to(dtype), y.to(dtype))
            return round_pair(total, error, self.arithmetic, self.stream)

        dtype = common_dtype((a, b))
        return blockwise(block, dtype, *self._tensors((a, b), dtype))

    def subtract(self, a: Operand, b: Operand) -> Tensor:
        """Return a - b, one rounding."""
        return self.add(a, -b.to(common_dtype((a, b))) if isinstance(b, Tensor) else -b)

    def multiply(self, a: Operand, b: Operand) -> Tensor:
        """Return a b, one rounding."""

        def block(x: Tensor, y: Tensor) -> Tensor:
            x, y = self._widen(x, dtype), self._widen(y, dtype)
            if dtype == torch.float64:
                return self._pair(two_product(x, y), dtype)
            return round_wide(x * y, dtype, self.arithmetic, self.stream)

        dtype = common_dtype((a, b))
        return blockwise(block, dtype, *self._tensors((a, b), dtype))

    def divide(self, a: Operand, b: Operand) -> Tensor:
        """Return a / b, one rounding."""

        def block(x: Tensor, y: Tensor) -> Tensor:
            x, y = self._widen(x, dtype), self._widen(y, dtype)
            quotient = x / y
            if dtype == torch.float64:
                product, error = two_product(quotient, y)
                return self._pair((quotient, ((x - product) - error) / y), dtype)
            return round_wide(quotient, dtype, self.arithmetic, self.stream)

        dtype = common_dtype((a, b))
        return blockwise(block, dtype, *self._tensors((a, b), dtype))

    def sqrt(self, a: Tensor) -> Tensor:
        """Return the square root of a, one rounding."""

        def block(x: Tensor) -> Tensor:
            x = self._widen(x, a.dtype)
            root = x.sqrt()
            if a.dtype == torch.float64:
                product, error = two_product(root, root)
                return self._pair((root, ((x - product) - error) / (2 * root)), a.dtype)
            return round_wide(root, a.dtype, self.arithmetic, self.stream)

        return blockwise(block, a.dtype, a)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Tensor:
        """Return a b + c, one rounding."""

        def block(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
            x, y, z = (self._widen(t, dtype) for t in (x, y, z))
            if dtype == torch.float64:
                product, error = two_product(x, y)
                total, low = two_sum(product, z)
                return self._pair(two_sum(total, low + error), dtype)
            return self._pair(two_sum(x * y, z), dtype)

        dtype = common_dtype((a, b, c))
        return blockwise(block, dtype, *self._tensors((a, b, c), dtype))

    def leaky(self, x: Tensor, slope: Operand) -> Tensor:
        """Return x where it is positive, else slope x with one rounding."""
        return torch.where(x > 0, x, self.multiply(x, slope))

    def noisy(self, value: Tensor, std: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return one rounding of value plus Gaussian noise of standard deviation `std`, where that is finite.

        Args:
            value: float32 or float64. Of the dtype of the result it is already rounded: with std 0 it is exact.
            std: Same shape or broadcastable, any precision.
            dtype: Of the result; that of `value` by default.
        """
        dtype = dtype or value.dtype

        def block(v: Tensor, s: Tensor) -> Tensor:
            noise = self.stream.normal(v.numel()).view(v.shape).double() * s
            return self._pair(two_sum(v.double(), torch.nan_to_num(noise, 0.0, 0.0, 0.0)), dtype)

        return blockwise(block, dtype, value, std)

    def unknown(self, value: Tensor) -> Tensor:
        """Return one rounding of an inexact result whose residual is not known: uniform over an ulp; 0 stays."""
        return blockwise(lambda v: self._round_unknown(v, None), value.dtype, value)

    def round(self, wide: Tensor, dtype: torch.dtype) -> Tensor:
        """Return one rounding of an exact float64 tensor to `dtype`."""
        return blockwise(lambda w: round_wide(w, dtype, self.arithmetic, self.stream), dtype, wide)

    def add_wide(self, a: Tensor, b: Operand, dtype: torch.dtype, low: Tensor | None = None) -> Tensor:
        """Return one rounding of a + b + low to `dtype`, for exact float64 operands of which `low` is small."""

        def block(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
            total, error = two_sum(x, y)
            return self._pair(two_sum(total, error + z), dtype)

        other = b if isinstance(b, Tensor) else torch.full_like(a, b)
        return blockwise(block, dtype, a, other, torch.zeros_like(a) if low is None else low)

    def operand(self, x: Tensor) -> Tensor:
        """Return an operand in float64, with inbound noise where the mode has it."""
        return self._widen(x, x.dtype)

    def _pair(self, pair: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        total, low = pair
        return round_wide(total, dtype, self.arithmetic, self.stream, torch.nan_to_num(low, 0.0, 0.0, 0.0))

    def _widen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if self.arithmetic.inbound:
            return perturb_operand(x, self.arithmetic.bits(dtype), self.stream)
        return x.double()

    def _tensors(self, operands: tuple[Operand, ...], dtype: torch.dtype) -> list[Tensor]:
        """Return the operands as tensors; a double constant is narrowed by one rounding, for all elements together."""
        return [x if isinstance(x, Tensor) else self._constant(x, dtype) for x in operands]

    def _constant(self, x: float, dtype: torch.dtype) -> Tensor:
        exact = torch.tensor(x, dtype=torch.float64, device=self.stream.device)
        if bool(exact.to(dtype).double() == exact) or x != x:
            return exact.to(dtype)  # no conversion, hence none that `up_down` or a virtual precision could perturb
        return round_wide(exact[None], dtype, self.arithmetic, self.stream)[0]

    def _round_unknown(self, value: Tensor, whole: Tensor | None) -> Tensor:
        size = torch.nextafter(value.abs(), torch.full_like(value, torch.inf)) - value.abs()
        residual = (self.stream.uniform(value.numel()).view(value.shape).double() - 0.5) * size
        known = ~value.isfinite() | (value == 0)
        if whole is not None:
            known |= whole & (value == value.round()) & (value.abs() < 2.0 ** MANTISSA[value.dtype])
        return round_pair(value, torch.where(known, 0.0, residual), self.arithmetic, self.stream)


def common_dtype(operands: tuple[Operand, ...]) -> torch.dtype:
    """Return the dtype that torch's promotion gives: tensors with dimensions decide, before scalar tensors."""
    floating = [x for x in operands if isinstance(x, Tensor) and x.is_floating_point()]
    deciding = [x for x in floating if x.dim()] or floating
    dtype = deciding[0].dtype
    for x in deciding[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype
