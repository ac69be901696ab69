"""Convolutions and matrix products of the route exact: in which order does the stock kernel add the products?

The compiled kernel rounds after every multiply-add (kernels/products.cpp); the orders are those that reproduce the bits
of the stock kernels with rounding to nearest: oneDNN's direct convolution starts from the bias and goes through eights
of channels, then rows and columns of the kernel, then the channels of the eight; torch's own is a chain over channels,
rows and columns with the bias last; a matrix product adds panels of 256.
"""

from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.kernels.products import Order, sum_products
from mcaprobe.kernels.reductions import reduce
from mcaprobe.noise.compiled import CompiledSite
from mcaprobe.noise.stock import PANEL, backend_of, starts_from_bias


def convolution(
    site: CompiledSite,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    """aten.convolution in 1, 2 and 3 dimensions, grouped and transposed; x (N, C, *spatial), N may be missing."""
    dims = weight.dim() - 2
    if x.dim() < weight.dim():
        rest = (stride, padding, dilation, transposed, output_padding, groups)
        return convolution(site, x[None], weight, bias, *rest)[0]
    backend = backend_of(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    stride, padding, dilation, output_padding = (
        _triple(v, dims, fill) for v, fill in ((stride, 1), (padding, 0), (dilation, 1), (output_padding, 0))
    )
    kernel = (1,) * (3 - dims) + tuple(weight.shape[2:])
    sizes = (1,) * (3 - dims) + tuple(x.shape[2:])
    source = x.reshape(*x.shape[:2], *sizes) if dims < 3 else x
    if transposed:
        outputs = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + o
            for n, s, p, d, k, o in zip(sizes, stride, padding, dilation, kernel, output_padding, strict=True)
        )
        out = x.new_empty(x.shape[0], weight.shape[1] * groups, *outputs)
        _transposed(site, source, weight, bias, out, (stride, padding, dilation, kernel), groups, "slow" in backend)
    else:
        outputs = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, s, p, d, k in zip(sizes, stride, padding, dilation, kernel, strict=True)
        )
        out = x.new_empty(x.shape[0], weight.shape[0], *outputs)
        direct = starts_from_bias(backend, bias, transposed)
        order = _direct_order(weight.shape[1], kernel, padding, dilation, 8 if direct else 1, direct)
        rows = weight.reshape(groups, -1, weight.shape[1] * prod(kernel))
        sum_products(site.call(), source, rows[:, :, _flat(order, prod(kernel))], bias, order, stride, out)
    return out.reshape(*out.shape[:2], *out.shape[5 - dims :])


def _triple(values: Any, dims: int, fill: int) -> tuple[int, int, int]:
    """Return a value for each of three dimensions, of which the missing ones come first."""
    given = list(values) * dims if len(values) == 1 else list(values)
    first, second, third = [fill] * (3 - dims) + given
    return first, second, third


def _flat(order: Order, taps: int) -> Tensor:
    return order.channel.long() * taps + order.tap


@lru_cache(maxsize=512)
def _direct_order(
    channels: int, kernel: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], unit: int, first: bool
) -> Order:
    taps = list(product(*(range(k) for k in kernel)))
    pairs = [
        (c, t)
        for start in range(0, channels, unit)
        for t in range(len(taps))
        for c in range(start, min(start + unit, channels))
    ]
    offsets = [[t * d - p for t, d, p in zip(tap, dilation, padding, strict=True)] for tap in taps]
    return _order(pairs, offsets, None, first)


def _order(pairs: list[tuple[int, int]], offsets: list[list[int]], segment: int | None, first: bool) -> Order:
    table = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2).T.contiguous()
    return Order(table[0], table[1], torch.tensor(offsets, dtype=torch.int32).reshape(-1, 3), segment, first)


Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _transposed(
    site: CompiledSite,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    geometry: Geometry,
    groups: int,
    columns: bool,
) -> None:
    """Fill the outputs of a transposed convolution, those that meet the same taps together.

    Args:
        columns: Each tap is summed over the channels first, then added (sgemm and col2im); else it is one chain.
    """
    stride = geometry[0]
    channels, taps = weight.shape[0] // groups, prod(geometry[3])
    # (groups, rows, channels x taps)
    rows = weight.reshape(groups, channels, weight.shape[1], taps).transpose(1, 2).flatten(2)
    for phase in product(*(range(s) for s in stride)):
        index: Any = (..., *(slice(r, None, s) for r, s in zip(phase, stride, strict=True)))
        part = out[index]
        if part.numel():
            order, chosen = _phase_order(channels, phase, geometry, columns)
            sum_products(site.call(), x, rows[:, :, chosen], bias, order, (1, 1, 1), part)


@lru_cache(maxsize=512)
def _phase_order(
    channels: int, phase: tuple[int, ...], geometry: Geometry, columns: bool
) -> tuple[Order, Tensor]:
    """Return the order for the outputs phase, phase + stride, ..., and each product's index in (channels x taps)."""
    stride, padding, dilation, kernel = geometry
    met, offsets = [], []
    for tap, place in enumerate(product(*(range(k) for k in kernel))):
        reach = [r + p - t * d for r, p, t, d in zip(phase, padding, place, dilation, strict=True)]
        if all(n % s == 0 for n, s in zip(reach, stride, strict=True)):
            met.append(tap)
            offsets.append([n // s for n, s in zip(reach, stride, strict=True)])
    pairs = [(c, t) for t in range(len(met)) for c in range(channels)]
    flat = torch.tensor([c * prod(kernel) + met[t] for c, t in pairs], dtype=torch.int64)
    return _order(pairs, offsets, channels if columns else None, False), flat


@lru_cache(maxsize=512)
def _matrix_order(products: int) -> Order:
    pairs = [(k, 0) for k in range(products)]
    return _order(pairs, [[0, 0, 0]], PANEL if products > PANEL else None, False)


def mm(site: CompiledSite, a: Tensor, b: Tensor) -> Tensor:
    """aten.mm: (n, k) @ (k, m)."""
    return bmm(site, a[None], b[None])[0]


def bmm(site: CompiledSite, a: Tensor, b: Tensor) -> Tensor:
    """aten.bmm: (batch, n, k) @ (batch, k, m); the longer of n and m is laid along the columns."""
    (batch, n, k), m = a.shape, b.shape[2]
    if n > m:
        return bmm(site, b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2).contiguous()
    out = a.new_empty(batch, n, m)
    if not k:
        return out.zero_()
    # The matrices of a batch are groups of channels; a position is a column.
    lines, target = b.reshape(1, batch * k, 1, 1, m), out.view(1, batch * n, 1, 1, m)
    sum_products(site.call(), lines, a, None, _matrix_order(k), (1, 1, 1), target)
    return out


def mv(site: CompiledSite, a: Tensor, v: Tensor) -> Tensor:
    """aten.mv: (n, k) @ (k,)."""
    return reduce(site.call(), "dot", a[:, :, None], v.expand(a.shape)).flatten()


def dot(site: CompiledSite, a: Tensor, b: Tensor) -> Tensor:
    """aten.dot of two vectors."""
    return reduce(site.call(), "dot", a[None, :, None], b[None]).reshape(())
