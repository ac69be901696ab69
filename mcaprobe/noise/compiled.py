"""How are the elementary operations of a float32 call carried out by the compiled kernels?

Modes `random`, `nearness` and, for the IEEE reference of the route exact, `nearest`. Anything else (float64, a result
of unknown residual) is left to the torch operations of `Site`.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from mcaprobe import kernels
from mcaprobe.kernels.call import MODES, Call
from mcaprobe.kernels.elementwise import elementwise
from mcaprobe.noise.site import Operand, Site, common_dtype
from mcaprobe.rounding import Arithmetic
from mcaprobe.streams import Stream


class CompiledSite(Site):
    """A Site whose float32 operations are compiled.

    Attributes:
        chains: Whether sums and products are rounded step by step as well (the route exact).
        threads: Of each kernel; changes no bit.
    """

    __slots__ = ("_operations", "chains", "threads")

    def __init__(
        self, arithmetic: Arithmetic, stream: Stream, perturbed: bool, chains: bool = True, threads: int = 1
    ) -> None:
        super().__init__(arithmetic, stream, perturbed)
        self.chains = chains
        self.threads = threads
        self._operations = 0

    def call(self) -> Call:
        """Return what the next elementary operation states to its kernel."""
        self._operations += 1
        return Call(self.arithmetic.mode, self.stream.key, self._operations, self.threads)

    def wide(self, function: Callable[..., Tensor], *operands: Operand) -> Tensor:
        """Return one rounding of `function` evaluated in float64."""
        if not self._single(operands):
            return super().wide(function, *operands)
        return self._sweep("round", function(*(t.double() for t in self._singles(operands))))

    def add(self, a: Operand, b: Operand) -> Tensor:
        """Return a + b, one rounding."""
        return self._sweep("add", a, b) if self._single((a, b)) else super().add(a, b)

    def subtract(self, a: Operand, b: Operand) -> Tensor:
        """Return a - b, one rounding."""
        return self._sweep("subtract", a, b) if self._single((a, b)) else super().subtract(a, b)

    def multiply(self, a: Operand, b: Operand) -> Tensor:
        """Return a b, one rounding."""
        return self._sweep("multiply", a, b) if self._single((a, b)) else super().multiply(a, b)

    def divide(self, a: Operand, b: Operand) -> Tensor:
        """Return a / b, one rounding."""
        return self._sweep("divide", a, b) if self._single((a, b)) else super().divide(a, b)

    def sqrt(self, a: Tensor) -> Tensor:
        """Return the square root of a, one rounding."""
        return self._sweep("sqrt", a) if self._single((a,)) else super().sqrt(a)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Tensor:
        """Return a b + c, one rounding."""
        return self._sweep("multiply_add", a, b, c) if self._single((a, b, c)) else super().fma(a, b, c)

    def leaky(self, x: Tensor, slope: Operand) -> Tensor:
        """Return x where it is positive, else slope x with one rounding."""
        return self._sweep("leaky", x, slope) if self._single((x, slope)) else super().leaky(x, slope)

    def noisy(self, value: Tensor, std: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return one rounding of value plus Gaussian noise of standard deviation `std`, where that is finite."""
        if (dtype or value.dtype) != torch.float32:
            return super().noisy(value, std, dtype)
        return self._sweep("noise", value, std)

    def round(self, wide: Tensor, dtype: torch.dtype) -> Tensor:
        """Return one rounding of an exact float64 tensor to `dtype`."""
        return self._sweep("round", wide) if dtype == torch.float32 else super().round(wide, dtype)

    def _sweep(self, operation: str, *operands: Operand) -> Tensor:
        return elementwise(self.call(), operation, *self._singles(operands))

    def _singles(self, operands: tuple[Operand, ...]) -> list[Tensor]:
        """Return the operands as tensors, integers as float32, as torch converts them."""
        return [t if t.is_floating_point() else t.float() for t in self._tensors(operands, torch.float32)]

    def _constant(self, x: float, dtype: torch.dtype) -> Tensor:
        exact = torch.tensor(x, dtype=torch.float64)
        if dtype != torch.float32 or bool(exact.float().double() == exact) or x != x:
            return super()._constant(x, dtype)
        return elementwise(self.call(), "round", exact)

    def _single(self, operands: tuple[Operand, ...]) -> bool:
        wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in operands)
        return common_dtype(operands) == torch.float32 and not wide


def rounds_steps(site: Site) -> TypeGuard[CompiledSite]:
    """Return whether sums and products are rounded step by step, not modelled as a whole."""
    return isinstance(site, CompiledSite) and site.chains


def compiles(arithmetic: Arithmetic, device: torch.device) -> bool:
    """Return whether float32 tensors on this device have compiled arithmetic of this mode."""
    return device.type == "cpu" and arithmetic.mode in MODES and kernels.library() is not None
