"""Interpolation and average pooling: a few weighted taps each."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise.accumulation import Order, operand_variance, ordered_squares, rounding_std
from mcaprobe.noise.site import Site

aten = torch.ops.aten

WINDOW = Order(fused=False)


def _average_pool(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def rule(site: Site, x: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
             count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
        window = (kernel_size, stride or kernel_size, padding, ceil_mode)
        size = kernel_size if isinstance(kernel_size, (list, tuple)) else [kernel_size] * 2
        full_count = prod(size)

        def total(t: Tensor) -> Tensor:
            return pool(t, *window, True, 1)

        wide = x.double()
        terms, squares = total((x != 0).double()), total(wide.square())
        std = rounding_std(ordered_squares(total(wide), squares, terms, WINDOW, full_count), site.arithmetic,
                           site.perturbed, x.dtype)
        inbound = operand_variance(site.arithmetic, x.dtype, factors=1)
        std = torch.where(terms > 1, (std.square() + inbound * squares).sqrt(), 0.0)
        summed = site.noisy(total(x), std)
        if divisor_override is not None:
            return site.divide(summed, float(divisor_override))
        divisor = pool(torch.ones_like(x[:1, :1]), *window, count_include_pad, 1 if not count_include_pad else None)
        if count_include_pad:
            # The average of ones is the share of the window that lies inside: its inverse gives the divisor.
            divisor = pool(torch.ones_like(x[:1, :1]), *window, True, 1) / divisor
        return site.divide(summed, divisor)

    return rule


def _linear(upsample: Any, dims: int) -> Callable[..., Tensor]:
    """Linear interpolation in 1 to 3 dimensions: nested, the last dimension first, a product then multiply-adds."""

    def rule(site: Site, x: Tensor, output_size: Any, align_corners: bool, *scales: float | None) -> Tensor:
        factors = list(scales) + [None] * (dims - len(scales))
        grids = [_weights(site, x, 2 + d, output_size[d], align_corners, factors[d]) for d in range(dims)]

        def interpolate(chosen: tuple[Tensor, ...]) -> Tensor:
            d = len(chosen)
            if d == dims:
                return _take(x, chosen)
            low, high, weight_low, weight_high = grids[d]
            shape = (-1, *[1] * (dims - d - 1))
            first = site.multiply(interpolate((*chosen, low)), weight_low.view(shape))
            return site.fma(interpolate((*chosen, high)), weight_high.view(shape), first)

        return interpolate(())

    return rule


def _weights(site: Site, x: Tensor, dim: int, outputs: int, align_corners: bool, factor: float | None
             ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the lower and upper index and their weights for each output along one dimension, as the kernel does."""
    size = x.shape[dim]
    i = torch.arange(outputs, dtype=x.dtype, device=x.device)
    if align_corners:
        scale = (size - 1) / (outputs - 1) if outputs > 1 else 0.0
        position = site.multiply(i, scale)
    else:
        scale = 1 / factor if factor else size / outputs
        position = site.subtract(site.multiply(i + 0.5, scale), 0.5).clamp(min=0)
    low = position.floor().clamp(max=size - 1)
    weight_high = (position - low).clamp(0, 1)
    high = (low + 1).clamp(max=size - 1)
    return low.long(), high.long(), site.subtract(torch.ones_like(i), weight_high), weight_high


def _take(x: Tensor, index: tuple[Tensor, ...]) -> Tensor:
    for d, chosen in enumerate(index):
        x = x.index_select(2 + d, chosen)
    return x


RULES: dict[Any, Callable[..., Any]] = {
    aten.avg_pool2d: _average_pool(aten.avg_pool2d),
    aten.avg_pool3d: _average_pool(aten.avg_pool3d),
    aten.upsample_linear1d: _linear(aten.upsample_linear1d, 1),
    aten.upsample_bilinear2d: _linear(aten.upsample_bilinear2d, 2),
    aten.upsample_trilinear3d: _linear(aten.upsample_trilinear3d, 3),
}

