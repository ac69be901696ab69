"""Interpolation and average pooling: a few weighted taps each."""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise.accumulation import Order, ordered_squares
from mcaprobe.noise.compiled import rounds_steps
from mcaprobe.noise.reductions import add_up, noisy_sum
from mcaprobe.noise.site import Site

aten = torch.ops.aten

WINDOW = Order(fused=False)
FEW = 9  # taps of a window that are added one by one


def _taps(x: Tensor, pooled: Sequence[int], size: list[int], step: list[int], pad: list[int]) -> list[Tensor]:
    """Return, for each place in a window, the elements of x there in all windows, 0 outside, of shape `pooled`."""
    dims = len(size)
    pads: list[int] = []
    for d in range(dims):
        reach = (pooled[d - dims] - 1) * step[d] + size[d]
        pads = [pad[d], max(0, reach - pad[d] - x.shape[d - dims]), *pads]
    padded = aten.constant_pad_nd(x, pads)
    taps = []
    for offset in product(*(range(k) for k in size)):
        ranges = [slice(offset[d], offset[d] + (pooled[d - dims] - 1) * step[d] + 1, step[d]) for d in range(dims)]
        taps.append(padded[(..., *ranges)])
    return taps


def _average_pool(pool: Callable[..., Tensor], dims: int) -> Callable[..., Tensor]:
    def rule(
        site: Site,
        x: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        given = (kernel_size, stride or kernel_size, padding)
        size, step, pad = (list(v) * dims if len(v) == 1 else list(v) for v in given)

        def total(t: Tensor) -> Tensor:
            return pool(t, size, step, pad, ceil_mode, True, 1)

        if rounds_steps(site) or prod(size) <= FEW:
            summed = add_up(site, _taps(x, total(x).shape, size, step, pad))
        else:
            wide = x.double()
            value, terms, squares = total(wide), total((x != 0).double()), total(wide.square())
            spread = ordered_squares(value, squares, terms, WINDOW, prod(size))
            summed = noisy_sum(site, x, value, terms, squares, spread, lambda: total(wide.abs()))
        if divisor_override is not None:
            return site.divide(summed, float(divisor_override))
        plane = torch.ones((1, *x.shape[-dims:]), dtype=x.dtype, device=x.device)
        divisor = total(plane)
        if count_include_pad:
            # The average of ones is the share of the window that lies inside: its inverse gives the divisor.
            divisor = (divisor / pool(plane, size, step, pad, ceil_mode, True, None)).round()
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


def _weights(
    site: Site, x: Tensor, dim: int, outputs: int, align_corners: bool, factor: float | None
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
    aten.avg_pool2d: _average_pool(aten.avg_pool2d, 2),
    aten.avg_pool3d: _average_pool(aten.avg_pool3d, 3),
    aten.upsample_linear1d: _linear(aten.upsample_linear1d, 1),
    aten.upsample_bilinear2d: _linear(aten.upsample_bilinear2d, 2),
    aten.upsample_trilinear3d: _linear(aten.upsample_trilinear3d, 3),
}
