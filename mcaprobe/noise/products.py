"""Convolutions and matrix products: how do the roundings of a sum of products accumulate?"""

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise import stepwise
from mcaprobe.noise.accumulation import (
    Order,
    SequentialSquares,
    blocked_squares,
    operand_variance,
    ordered_squares,
    rounding_std,
)
from mcaprobe.noise.compiled import rounds_steps
from mcaprobe.noise.deviations import Deviation
from mcaprobe.noise.exactness import exact_sums
from mcaprobe.noise.site import Site
from mcaprobe.noise.stock import PANEL, backend_of, starts_from_bias
from mcaprobe.rounding import split

aten = torch.ops.aten
Bilinear = Callable[[Tensor, Tensor], Tensor]
# One run of products in the kernel's order of accumulation: the operator restricted to it, and its operands.
Run = tuple[Bilinear, Tensor, Tensor]

GEMM = Order(block=PANEL)
DOT = Order(unroll=4, vector=8)
FEW = 3  # products of a sum whose last rounding is as large as all the others
RUNS = 9  # known partial sums along one accumulation: more would follow its path more closely, and cost more passes


def sum_of_products(
    site: Site,
    bilinear: Bilinear,
    x: Tensor,
    weight: Tensor,
    runs: list[Run],
    order: Order | None = None,
    start: Tensor | None = None,
    count: Callable[[Bilinear, Tensor, Tensor], Tensor] | None = None,
    parts: Tensor | None = None,
) -> Tensor:
    """Return a perturbed sum of products of x and weight (plus start).

    Args:
        bilinear: The stock operator without bias.
        runs: The products cut into runs, in the order of the kernel's one accumulator.
        order: The order of a kernel that keeps several partial sums instead.
        start: Bias that the accumulation starts from, broadcastable to the result.
        count: Number of products of a run of each sum, from the masks of operands that are not 0.
        parts: Number of parts of each sum, where each is summed from zero and then added.
    """
    if not runs:  # sums of nothing
        empty = bilinear(x, weight)
        return empty if start is None else empty + start
    if site.deviations.recording:
        return site.deviations.record(_deviation(site, x, weight, runs, order, start, count, parts)).std
    total = bilinear(x, weight)
    known = site.deviations.of(total.shape, lambda: _deviation(site, x, weight, runs, order, start, count, parts))
    exact = exact_sums(site.arithmetic, (x, weight), lambda: bilinear(x.abs(), weight.abs()), start)
    deviation = known.std if exact is None else torch.where(exact, 0.0, known.std)
    y = site.noisy(total if start is None else total + start, deviation)
    return _few_products(site, bilinear, x, weight, start, known.terms, deviation, y)


def _deviation(
    site: Site,
    x: Tensor,
    weight: Tensor,
    runs: list[Run],
    order: Order | None,
    start: Tensor | None,
    count: Callable[[Bilinear, Tensor, Tensor], Tensor] | None,
    parts: Tensor | None,
) -> Deviation:
    """Return what the roundings of each sum amount to, without the last; arguments as for sum_of_products."""
    # Sums of squares are taken of operands scaled by a power of two, so that they neither underflow nor overflow.
    sx, sw = _scale(x), _scale(weight)
    terms, energy = torch.zeros((), device=x.device), torch.zeros((), device=x.device)
    path = None

    def measure(run: Run) -> tuple[Tensor, Tensor, Tensor]:
        operator, a, w = run
        a, w = a * sx, w * sw
        masks = (a != 0).to(a.dtype), (w != 0).to(w.dtype)
        k = operator(*masks) if count is None else count(operator, *masks)
        return operator(a, w), operator(a.square(), w.square()).clamp_(min=0), k

    for part, squares, k in site.deviations.each(measure, runs):
        if path is None:
            origin = torch.zeros_like(part) if start is None else (start * (sx * sw)).expand(part.shape)
            path = SequentialSquares(origin)
        terms = terms + k
        if site.arithmetic.inbound:
            energy = energy + squares
        if parts is not None:
            path.summed = blocked_squares(part, squares, k, parts)
        elif order is None:
            path.add(part, squares, k)
        else:
            path.summed = ordered_squares(part, squares, k, order, x.shape[-1])
    assert path is not None  # there is always one run
    summed = path.without_last() if order is None and parts is None else path.summed
    inbound = operand_variance(site.arithmetic, x.dtype, factors=2)
    deviation = (rounding_std(summed, site.arithmetic, site.perturbed, x.dtype).square() + inbound * energy).sqrt()
    return Deviation(torch.where(terms > 0, deviation, 0.0) / (sx * sw), terms)


def _few_products(
    site: Site,
    bilinear: Bilinear,
    x: Tensor,
    weight: Tensor,
    start: Tensor | None,
    terms: Tensor,
    deviation: Tensor,
    y: Tensor,
) -> Tensor:
    """Where a sum has few products, its last rounding matters: it is taken from the sum in twice the precision.

    In float64 only sums of one product, whose error is known without a wider format.
    """
    few = (terms <= (FEW if y.dtype == torch.float32 else 1)).expand(y.shape) & (terms > 0)
    if site.arithmetic.inbound or not bool(few.any()):
        return y
    bias = 0.0 if start is None else start.double()
    if y.dtype == torch.float32:
        # One product has no rounding but the last.
        noise = torch.where(terms > 1, deviation.double(), 0.0) * site.stream.normal(y.numel()).view(y.shape)
        sums = site.add_wide(bilinear(x.double(), weight.double()), bias, y.dtype, noise)
        return torch.where(few, sums, y)
    (xh, xl), (wh, wl) = split(x), split(weight)
    value = bilinear(x, weight)
    low = ((bilinear(xh, wh) - value) + bilinear(xh, wl) + bilinear(xl, wh)) + bilinear(xl, wl)
    return torch.where(few, site.add_wide(value, bias, y.dtype, low), y)


def _scale(x: Tensor) -> float:
    largest = x.abs().max().item() if x.numel() else 1.0
    if not 0 < largest < float("inf"):
        return 1.0
    return 2.0 ** -max(-1000, min(1000, int(torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent)))


def convolution(
    site: Site,
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
    """aten.convolution in 1, 2 and 3 dimensions, grouped and transposed."""
    if rounds_steps(site):
        rest = (stride, padding, dilation, transposed, output_padding, groups)
        return stepwise.convolution(site, x, weight, bias, *rest)
    if x.dim() < weight.dim():
        rest = (stride, padding, dilation, transposed, output_padding, groups)
        return convolution(site, x[None], weight, bias, *rest)[0]

    def bilinear(a: Tensor, w: Tensor) -> Tensor:
        return aten.convolution(a, w, None, stride, padding, dilation, transposed, output_padding, groups)

    def count(operator: Bilinear, mask: Tensor, kept: Tensor) -> Tensor:
        if not bool(kept.all()):
            return operator(mask, kept)
        # No weight is 0: the masks are added up over the channels of a group first.
        per_group = mask.unflatten(1, (groups, -1)).sum(2)
        ones = torch.ones((groups, 1, *kept.shape[2:]), dtype=mask.dtype, device=mask.device)
        outputs = weight.shape[1] if transposed else weight.shape[0] // groups
        return operator(per_group, ones).repeat_interleave(outputs, dim=1) if groups > 1 else operator(per_group, ones)

    shape = (-1, *[1] * (weight.dim() - 2))
    backend = backend_of(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    direct = starts_from_bias(backend, bias, transposed)
    runs: list[Run] = [(bilinear, x, weight)]
    parts = None
    if not transposed:
        runs = convolution_runs(x, weight, stride, padding, dilation, groups, direct)
    elif "slow" in backend:
        # sgemm sums over the channels for each tap of the kernel, col2im adds the taps up.
        parts = bilinear(x.new_ones((1, *x.shape[1:])), torch.ones_like(weight)) / (weight.shape[0] // groups)
    start = bias.view(shape) if bias is not None and direct else None
    y = sum_of_products(site, bilinear, x, weight, runs, start=start, count=count, parts=parts)
    return y if bias is None or direct else site.add(y, bias.view(shape))


def convolution_runs(
    x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int, direct: bool
) -> list[Run]:
    """Cut a convolution into at most RUNS runs along its order of accumulation.

    Input channels first (in eights where oneDNN's direct kernel runs), then the kernel's rows, then its columns; the
    finest level that is affordable.
    """
    channels, kernel = weight.shape[1], weight.shape[2:]
    unit = 8 if direct else 1
    parts = -(-channels // unit)
    step = unit * -(-parts // RUNS)
    slices = [slice(c, c + step) for c in range(0, channels, step)]
    split = 0
    while split < len(kernel) and len(slices) * prod(kernel[: split + 1]) <= RUNS:
        split += 1
    offsets = list(product(*(range(k) for k in kernel[:split])))
    grouped = x.unflatten(1, (groups, channels))
    return [
        (_tap_operator(offset, kernel, stride, padding, dilation, groups),
         grouped[:, :, part].flatten(1, 2), weight[(slice(None), part, *(slice(o, o + 1) for o in offset))])
        for part in slices for offset in offsets
    ]  # fmt: skip


def _tap_operator(
    offset: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Bilinear:
    """Return the convolution restricted to the taps at `offset` along the first kernel dimensions."""
    dims = len(kernel)
    stride, padding, dilation = (list(v) * dims if len(v) == 1 else list(v) for v in (stride, padding, dilation))

    def operator(a: Tensor, w: Tensor) -> Tensor:
        pads: list[int] = []
        for d in range(len(offset)):
            size = a.shape[2 + d]
            outputs = (size + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
            before = padding[d] - offset[d] * dilation[d]
            pads = [before, (outputs - 1) * stride[d] + 1 - before - size, *pads]
        cut = aten.constant_pad_nd(a, [0, 0] * (dims - len(offset)) + pads) if offset else a
        rest = [0] * len(offset) + padding[len(offset) :]
        return aten.convolution(cut, w, None, stride, rest, dilation, False, [0] * dims, groups)

    return operator


def _matrix_runs(operator: Bilinear, a: Tensor, b: Tensor) -> tuple[list[Run], Order | None]:
    k = a.shape[-1]
    if k > PANEL:
        return [(operator, a, b)], GEMM
    step = max(1, -(-k // RUNS))
    return [(operator, a[..., i : i + step], b[..., i : i + step, :]) for i in range(0, k, step)], None


def mm(site: Site, a: Tensor, b: Tensor) -> Tensor:
    """aten.mm: (n, k) @ (k, m)."""
    if rounds_steps(site):
        return stepwise.mm(site, a, b)
    return sum_of_products(site, torch.mm, a, b, *_matrix_runs(torch.mm, a, b))


def bmm(site: Site, a: Tensor, b: Tensor) -> Tensor:
    """aten.bmm: (batch, n, k) @ (batch, k, m)."""
    if rounds_steps(site):
        return stepwise.bmm(site, a, b)
    return sum_of_products(site, torch.bmm, a, b, *_matrix_runs(torch.bmm, a, b))


def mv(site: Site, a: Tensor, v: Tensor) -> Tensor:
    """aten.mv: (n, k) @ (k,)."""
    if rounds_steps(site):
        return stepwise.mv(site, a, v)
    return sum_of_products(site, torch.mv, a, v, [(torch.mv, a, v)], DOT)


def dot(site: Site, a: Tensor, b: Tensor) -> Tensor:
    """aten.dot of two vectors."""
    if rounds_steps(site):
        return stepwise.dot(site, a, b)
    return sum_of_products(site, torch.dot, a, b, [(torch.dot, a, b)], DOT)


def addmm(site: Site, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """aten.addmm: beta c + alpha a @ b, the product first, then one addition."""
    return _scaled_sum(site, c, mm(site, a, b), beta, alpha)


def addmv(site: Site, c: Tensor, a: Tensor, v: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """aten.addmv: beta c + alpha a @ v."""
    return _scaled_sum(site, c, mv(site, a, v), beta, alpha)


def baddbmm(site: Site, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """aten.baddbmm: beta c + alpha a @ b, batched."""
    return _scaled_sum(site, c, bmm(site, a, b), beta, alpha)


def _scaled_sum(site: Site, c: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    if alpha != 1:
        product = site.multiply(product, float(alpha))
    if beta == 0:
        return product
    return site.add(product, c if beta == 1 else site.multiply(c, float(beta)))


def _traced_convolution(site: Site, *call: Any) -> Tensor:
    """aten._convolution, which traced models call: the same and four flags."""
    return convolution(site, *call[:9])


RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution: convolution, aten._convolution: _traced_convolution,
    aten.mm: mm, aten.bmm: bmm, aten.mv: mv, aten.dot: dot, aten.vdot: dot,
    aten.addmm: addmm, aten.addmv: addmv, aten.baddbmm: baddbmm,
}  # fmt: skip
