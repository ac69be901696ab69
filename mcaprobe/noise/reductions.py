"""Sums, means and average poolings: torch's own order of addition decides how many roundings meet which partial sum."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise.accumulation import Order, operand_variance, ordered_squares, rounding_std
from mcaprobe.noise.site import Site

aten = torch.ops.aten

# torch's CPU sum: over the innermost dimension 8 vector lanes x 4, else one lane; a cascade in each.
INNER = Order(fused=False, unroll=4, vector=8, cascade=True)
OUTER = Order(fused=False, cascade=True)
WINDOW = Order(fused=False)


def sum_(site: Site, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None,
         order: Order | None = None) -> Tensor:
    """aten.sum over some or all dimensions."""
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point():
        return aten.sum.dim_IntList(x, dim, keepdim)
    dims = _dims(x, dim)
    if not dims:
        return x.clone()
    count = prod(x.shape[d] for d in dims)
    order = order or (INNER if x.dim() - 1 in dims and x.is_contiguous() else OUTER)
    total = aten.sum.dim_IntList(x, dims, keepdim)
    wide = x.double()
    squares, terms = wide.square().sum(dims, keepdim), (x != 0).sum(dims, keepdim).double()
    spread = ordered_squares(wide.sum(dims, keepdim), squares, terms, order, count)
    std = rounding_std(spread, site.arithmetic, site.perturbed, x.dtype)
    inbound = operand_variance(site.arithmetic, x.dtype, factors=1)
    std = torch.where(terms > 1, (std.square() + inbound * squares).sqrt(), 0.0)
    return site.noisy(total, std)


def mean(site: Site, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """aten.mean: the sum, then one division."""
    count = prod(x.shape[d] for d in _dims(x, dim))
    return site.divide(sum_(site, x, dim, keepdim, dtype=dtype), float(count))


def var_mean(site: Site, x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
             ) -> tuple[Tensor, Tensor]:
    """aten.var_mean: the mean, the squared differences, their sum, one division."""
    dims = _dims(x, dim)
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
    return site.sqrt(var(site, x, dim, **options))


def cumsum(site: Site, x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """aten.cumsum: one addition after the other, so that the noise adds up too."""
    x = x if dtype is None else x.to(dtype)
    if not x.is_floating_point():
        return x.cumsum(dim)
    partial = x.double().cumsum(dim)
    step = rounding_std(partial.square(), site.arithmetic, site.perturbed, x.dtype)
    # An addition to or of zero is exact; the last rounding of each element is carried out below.
    rounded = (x != 0) & ((x != 0).cumsum(dim) > 1)
    noise = site.stream.normal(x.numel()).view(x.shape) * torch.where(rounded, step, 0.0)
    return site.round(partial + (noise.cumsum(dim) - noise), x.dtype)


def prod_(site: Site, x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
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
    return [d % max(x.dim(), 1) for d in ([dim] if isinstance(dim, int) else dim)]


RULES: dict[Any, Callable[..., Any]] = {
    aten.sum: sum_, aten.mean: mean, aten.var: var, aten.std: std, aten.var_mean: var_mean, aten.cumsum: cumsum,
    aten.prod: prod_,
}  # fmt: skip
