"""Elementwise arithmetic and vector math: one rounding each, or as many as the stock formula has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise.site import Site
from mcaprobe.rounding import MANTISSA

aten = torch.ops.aten


def add(site: Site, a: Any, b: Any, alpha: float = 1) -> Tensor:
    """aten.add: a + alpha b, fused where alpha is not 1."""
    return site.add(a, b) if alpha == 1 else site.fma(b, float(alpha), a)


def sub(site: Site, a: Any, b: Any, alpha: float = 1) -> Tensor:
    """aten.sub: a - alpha b."""
    return add(site, a, b, alpha=-alpha) if alpha != 1 else site.subtract(a, b)


def rsub(site: Site, a: Tensor, b: Any, alpha: float = 1) -> Tensor:
    """aten.rsub: b - alpha a."""
    return sub(site, b, a, alpha)


def mul(site: Site, a: Tensor, b: Any) -> Tensor:
    """aten.mul."""
    return site.multiply(a, b)


def div(site: Site, a: Tensor, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    """aten.div; the result of a division that is then floored or truncated is exact."""
    if rounding_mode is not None:
        return torch.div(a, b, rounding_mode=rounding_mode)
    return site.divide(a, b)


def addcmul(site: Site, a: Tensor, b: Tensor, c: Tensor, *, value: float = 1) -> Tensor:
    """aten.addcmul: a + value b c."""
    product = site.multiply(b, float(value)) if value != 1 else b
    return site.add(a, site.multiply(product, c))


def addcdiv(site: Site, a: Tensor, b: Tensor, c: Tensor, *, value: float = 1) -> Tensor:
    """aten.addcdiv: a + value b / c."""
    numerator = site.multiply(b, float(value)) if value != 1 else b
    return site.add(a, site.divide(numerator, c))


def lerp(site: Site, a: Tensor, b: Tensor, weight: Any) -> Tensor:
    """aten.lerp: a + weight (b - a), from the nearer end: where the weight is 1/2 or more b + (weight - 1)(b - a)."""
    difference = site.subtract(b, a)
    if isinstance(weight, Tensor):
        below = weight.abs() < 0.5
        factor = torch.where(below, weight, site.subtract(weight, 1.0))
        return site.fma(factor, difference, torch.where(below, a, b))
    return site.fma(float(weight), difference, a) if abs(weight) < 0.5 else site.fma(weight - 1.0, difference, b)


def sqrt(site: Site, x: Tensor) -> Tensor:
    """aten.sqrt."""
    return site.sqrt(x)


def rsqrt(site: Site, x: Tensor) -> Tensor:
    """aten.rsqrt: 1 / sqrt(x)."""
    return site.divide(1.0, site.sqrt(x))


def reciprocal(site: Site, x: Tensor) -> Tensor:
    """aten.reciprocal."""
    return site.divide(1.0, x)


def exp(site: Site, x: Tensor) -> Tensor:
    """aten.exp, which calls a vector math library: relative std 3.3 (random) and 1.8 (other modes) x 2^-24, measured.

    In `random` the library's rounding of the argument to a multiple of log 2 is itself turned to the wrong neighbour.
    """
    wide = site.operand(x).exp()
    scale = 3.3 if site.arithmetic.mode == "random" else 1.8 * (6 * site.arithmetic.step_variance(x.dtype, True)) ** 0.5
    value = wide.to(x.dtype)
    std = torch.where(x == 0, 0.0, wide * (scale * 2.0 ** -MANTISSA[x.dtype]))
    return site.noisy(value, std)


def sigmoid(site: Site, x: Tensor) -> Tensor:
    """aten.sigmoid: 1 / (1 + exp(-x))."""
    return site.divide(1.0, site.add(site.wide(torch.exp, -x), 1.0))


def silu(site: Site, x: Tensor) -> Tensor:
    """aten.silu: x / (1 + exp(-x))."""
    return site.divide(x, site.add(site.wide(torch.exp, -x), 1.0))


def gelu(site: Site, x: Tensor, *, approximate: str = "none") -> Tensor:
    """aten.gelu: x / 2 (1 + erf(x / sqrt 2)), or its tanh form."""
    if approximate == "tanh":
        cube = site.multiply(site.multiply(x, x), x)
        inner = site.multiply(site.fma(0.044715, cube, x), (2 / torch.pi) ** 0.5)
        return site.multiply(site.multiply(x, 0.5), site.add(site.wide(torch.tanh, inner), 1.0))
    scaled = site.multiply(x, 0.5**0.5)
    erf = _vector_erf(site, scaled) if x.dtype == torch.float32 else site.wide(torch.erf, scaled)
    return site.multiply(site.multiply(x, 0.5), site.add(erf, 1.0))


_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def _vector_erf(site: Site, x: Tensor) -> Tensor:
    """erf inside torch's float32 kernels: 1 - t p(t) exp(-x^2), t = 1 / (1 + c |x|) (Abramowitz & Stegun 7.1.26)."""
    t = site.divide(1.0, site.fma(0.3275911, x.abs(), torch.ones_like(x)))
    r = site.fma(_ERF[0], t, torch.full_like(x, _ERF[1]))
    for c in _ERF[2:]:
        r = site.fma(r, t, torch.full_like(x, c))
    decay = site.wide(torch.exp, -site.multiply(x, x))
    erf = site.fma(-site.multiply(decay, t), r, torch.ones_like(x))
    return torch.where(torch.signbit(x), -erf, erf)


def prelu(site: Site, x: Tensor, weight: Tensor) -> Tensor:
    """aten._prelu_kernel: x where positive, else weight x."""
    return site.leaky(x, weight)


def leaky_relu(site: Site, x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """aten.leaky_relu: x where positive, else slope x."""
    return site.leaky(x, float(negative_slope))


def pow_(site: Site, x: Any, exponent: Any) -> Tensor:
    """aten.pow; squares and cubes are products, the rest one rounding of the exact value."""
    if isinstance(exponent, (int, float)) and isinstance(x, Tensor):
        if exponent in (0, 1):
            return torch.pow(x, exponent)
        if exponent == 2:
            return site.multiply(x, x)
        if exponent == 3:
            return site.multiply(site.multiply(x, x), x)
        if exponent == 0.5:
            return site.sqrt(x)
        if exponent == -0.5:
            return rsqrt(site, x)
        if exponent == -1:
            return reciprocal(site, x)
    return site.wide(torch.pow, *(t.to(torch.get_default_dtype()) if _whole(t) else t for t in (x, exponent)))


def to_copy(site: Site, x: Tensor, *, dtype: torch.dtype, **options: Any) -> Tensor:
    """aten._to_copy from float64 to float32: one rounding."""
    return aten._to_copy(site.round(x, dtype), **options)


def _whole(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.is_floating_point()


def _once(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Vector math whose result is the exact value rounded once."""

    def rule(site: Site, x: Tensor) -> Tensor:
        return site.wide(function, x)

    return rule


def _once_of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def rule(site: Site, x: Tensor, y: Tensor) -> Tensor:
        return site.wide(function, x, y)

    return rule


_ONE_ROUNDING = (
    "log", "log2", "log10", "log1p", "expm1", "exp2", "tanh", "sinh", "cosh", "sin", "cos", "tan", "asin", "acos",
    "atan", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "lgamma", "digamma",
)  # fmt: skip

RULES: dict[Any, Callable[..., Any]] = {
    aten.add: add, aten.sub: sub, aten.rsub: rsub, aten.mul: mul, aten.div: div, aten.true_divide: div,
    aten.addcmul: addcmul, aten.addcdiv: addcdiv, aten.lerp: lerp, aten.sqrt: sqrt, aten.rsqrt: rsqrt,
    aten.reciprocal: reciprocal, aten.exp: exp, aten.sigmoid: sigmoid, aten.silu: silu, aten.gelu: gelu,
    aten._prelu_kernel: prelu, aten.leaky_relu: leaky_relu, aten.pow: pow_,
    aten._to_copy: to_copy,
    **{getattr(aten, name): _once(getattr(torch, name)) for name in _ONE_ROUNDING},
    aten.atan2: _once_of_two(torch.atan2), aten.hypot: _once_of_two(torch.hypot),
}  # fmt: skip
