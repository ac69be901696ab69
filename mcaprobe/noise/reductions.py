"""Sums, means and average poolings: torch's own order of addition decides how many roundings meet which partial sum."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.kernels.reductions import reduce
from mcaprobe.noise.accumulation import Order, operand_variance, ordered_squares, rounding_std
from mcaprobe.noise.compiled import CompiledSite, rounds_steps
from mcaprobe.noise.exactness import exact_sums
from mcaprobe.noise.site import Site

aten = torch.ops.aten

# torch's CPU sum: over the innermost dimension 8 vector lanes x 4, else one lane; a cascade in each.
INNER = Order(fused=False, unroll=4, vector=8, cascade=True)
OUTER = Order(fused=False, cascade=True)
WINDOW = Order(fused=False)


def sum_(
    site: Site,
    x: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
    order: Order | None = None,
) -> Tensor:
    """aten.sum over some or all dimensions."""
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point():
        return aten.sum.dim_IntList(x, dim, keepdim)
    dims = _dims(x, dim)
    count = prod(x.shape[d] for d in dims)
    if count < 2:
        return aten.sum.dim_IntList(x, dims, keepdim)
    order = order or (INNER if x.dim() - 1 in dims and x.is_contiguous() else OUTER)
    if rounds_steps(site):
        return _stepwise_sum(site, x, dims, order).reshape(total_shape(x, dims, keepdim))
    if len(dims) == 1 and count <= (16 if order == OUTER else 8) and not order.tree:
        return add_up(site, x.movedim(dims[0], 0)).reshape(total_shape(x, dims, keepdim))
    wide = x.double()

    def total(t: Tensor) -> Tensor:
        return aten.sum.dim_IntList(t, dims, keepdim)

    value = total(wide)
    terms, squares = total((x != 0).double()), total(wide.square())
    return noisy_sum(
        site, x, value, terms, squares, ordered_squares(value, squares, terms, order, count), lambda: total(wide.abs())
    )


def _stepwise_sum(site: CompiledSite, x: Tensor, dims: list[int], order: Order) -> Tensor:
    """Return the sums over `dims`, flat, each addition rounded."""
    dims = sorted(dims)
    kept = [d for d in range(x.dim()) if d not in dims]
    if order.vector > 1:
        flat = x.permute(*kept, *dims).reshape(prod(x.shape[d] for d in kept), prod(x.shape[d] for d in dims), 1)
        return reduce(site.call(), "vector" if order.tree else "inner", flat).flatten()
    before = [d for d in kept if d < dims[0]]
    if dims != list(range(dims[0], dims[-1] + 1)):
        before = []
    after = [d for d in kept if d not in before]
    outer, count, inner = (prod(x.shape[d] for d in part) for part in (before, dims, after))
    name = "outer" if order.cascade else "sequence"
    return reduce(site.call(), name, x.permute(*before, *dims, *after).reshape(outer, count, inner)).flatten()


def add_up(site: Site, terms: Sequence[Tensor] | Tensor) -> Tensor:
    """Return the sum of a few tensors, one addition after the other.

    Numbers of like size often have exact sums, which no mean over roundings knows.
    """
    total = terms[0]
    for term in terms[1:]:
        total = site.add(total, term)
    return total


def total_shape(x: Tensor, dims: list[int], keepdim: bool) -> list[int]:
    """Return the shape of a sum of x over `dims`."""
    kept = [1 if d in dims else n for d, n in enumerate(x.shape)]
    return kept if keepdim else [n for d, n in enumerate(x.shape) if d not in dims]


def noisy_sum(
    site: Site, x: Tensor, value: Tensor, terms: Tensor, squares: Tensor, spread: Tensor, bound: Callable[[], Tensor]
) -> Tensor:
    """Return the perturbed sums of elements of x.

    Args:
        value: The sums in float64, centre of the noise: the exact result is known to the last rounding.
        terms, squares: Number and sum of squares of the terms that are not 0.
        spread: Summed mean squares of the partial sums, without the last.
        bound: Gives the sums of absolute values.
    """
    exact = terms < 2
    if not bool(exact.all()):
        proven = exact_sums(site.arithmetic, (x,), bound)
        exact = exact if proven is None else exact | proven
    std = torch.where(exact, 0.0, rounding_std(spread, site.arithmetic, site.perturbed, x.dtype))
    std = (std.square() + operand_variance(site.arithmetic, x.dtype, factors=1) * squares).sqrt()
    if x.dtype == torch.float32:
        return site.noisy(value, std, x.dtype)
    # Double sums have no wider format to take the last rounding from, which is the only one of two terms.
    return torch.where(exact | (std > 0), site.noisy(value, std), site.unknown(value))


def mean(site: Site, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """aten.mean: the sum, then one division."""
    count = prod(x.shape[d] for d in _dims(x, dim))
    return site.divide(sum_(site, x, dim, keepdim, dtype=dtype), float(count))


def var_mean(
    site: Site, x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """aten.var_mean: float32 is accumulated in double by torch's kernel and rounded once.

    In double the mean, the squared differences, their sum, one division.
    """
    dims = _dims(x, dim)
    if x.dtype == torch.float32:
        pair = torch.var_mean(site.operand(x), dims, correction=correction, keepdim=keepdim)
        return site.round(pair[0], x.dtype), site.round(pair[1], x.dtype)
    centre = mean(site, x, dims, True)
    difference = site.subtract(x, centre)
    count = prod(x.shape[d] for d in dims) - (1 if correction is None else correction)
    variance = site.divide(sum_(site, site.multiply(difference, difference), dims, keepdim), float(max(count, 0)))
    return variance, centre if keepdim else centre.squeeze(dims)


def var(site: Site, x: Tensor, dim: Any = None, **options: Any) -> Tensor:
    """aten.var."""
    return var_mean(site, x, dim, **options)[0]


def std(site: Site, x: Tensor, dim: Any = None, **options: Any) -> Tensor:
    """aten.std."""
    if x.dtype == torch.float32:
        return site.round(torch.std(site.operand(x), _dims(x, dim), **options), x.dtype)
    return site.sqrt(var(site, x, dim, **options))


def cumsum(site: Site, x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """aten.cumsum: torch's kernel accumulates float32 in double and rounds each partial sum once.

    In double one addition comes after the other, so that the noise adds up too.
    """
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point() or x.dim() == 0:
        return x.cumsum(dim)
    partial = site.operand(x).cumsum(dim)
    if x.dtype == torch.float32:
        return site.round(partial, x.dtype)
    step = rounding_std(partial.square(), site.arithmetic, site.perturbed, x.dtype)
    # An addition to or of zero is exact.
    rounded = (x != 0) & ((x != 0).cumsum(dim) > 1)
    proven = exact_sums(site.arithmetic, (x,), lambda: x.abs().cumsum(dim))
    if proven is not None:
        rounded &= ~proven
    noise = site.stream.normal(x.numel()).view(x.shape) * torch.where(rounded, step, 0.0)
    return partial + torch.nan_to_num(noise.cumsum(dim), 0.0, 0.0, 0.0)


def cumprod(site: Site, x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """aten.cumprod: as cumsum."""
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point() or x.dim() == 0:
        return x.cumprod(dim)
    if x.dtype == torch.float32:
        return site.round(site.operand(x).cumprod(dim), x.dtype)
    factors = list(x.unbind(dim))
    for i in range(1, len(factors)):
        factors[i] = site.multiply(factors[i - 1], factors[i])
    return torch.stack(factors, dim) if factors else x.clone()


def prod_(
    site: Site, x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """aten.prod: one product after the other."""
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point():
        return x.prod() if dim is None else x.prod(dim, keepdim)
    factors = (x.reshape(-1) if dim is None else x.movedim(dim, 0)).unbind(0)
    result = torch.ones_like(factors[0]) if factors else x.new_ones(())
    for factor in factors:
        result = site.multiply(result, factor)
    return result if dim is None or not keepdim else result.unsqueeze(dim)


def _dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.dim()))
    return [d % x.dim() for d in ([dim] if isinstance(dim, int) else dim)] if x.dim() else []


RULES: dict[Any, Callable[..., Any]] = {
    aten.sum: sum_, aten.mean: mean, aten.var: var, aten.std: std, aten.var_mean: var_mean, aten.cumsum: cumsum,
    aten.cumprod: cumprod, aten.prod: prod_,
}  # fmt: skip
