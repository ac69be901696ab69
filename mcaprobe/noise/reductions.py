"""Sums, means and average poolings: torch's own order of addition decides how many roundings meet which partial sum."""

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


def _dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.dim()))
    return [d % max(x.dim(), 1) for d in ([dim] if isinstance(dim, int) else dim)]


RULES = {aten.sum: sum_, aten.mean: mean}
