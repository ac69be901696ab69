"""Pooling and unpooling tap by tap, in torch's own operations: for every device and format, bit for bit the kernels."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from nanops.functional.ties import bit, count, has
from nanops.tolerance import Tolerance
from nanops.windows import Windows

NAN, INF = float("nan"), float("inf")


def pool(x: Tensor, windows: Windows, tolerance: Tolerance, max_ties: int, word: torch.dtype | None
         ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the pooled values of x (N, C, ...) and indices, or bitmaps where their `word` is given.

    Windows in which more than `max_ties` values tie are NaN.
    """
    images = x.flatten(2)
    flat, inside = windows.indices(x.device)

    def read(taps: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        for t in taps:
            yield t, torch.where(inside[:, t], images[..., flat[:, t]], NAN)

    largest = x.new_full((*x.shape[:2], len(flat)), -INF)
    for _, v in read(range(windows.taps)):
        largest = torch.where(v > largest, v, largest)
    # Backwards: the first of several maxima is written last.
    ties_of = torch.zeros_like(largest, dtype=torch.int32)
    chosen = torch.zeros_like(largest, dtype=word or torch.int64)
    for t, v in read(reversed(range(windows.taps))):
        near = tolerance.ties(v, largest)
        ties_of += near
        if word is None:
            chosen = torch.where(v == largest, flat[:, t], chosen)
        else:
            chosen |= torch.where(near, bit(t, word), 0).to(word)
    nothing = ties_of == 0
    # A window of padding alone, as dilation can make it, has no position to be NaN: it is -inf, as torch has it.
    unclear = (nothing & inside.any(1)) | (ties_of > max_ties)
    values = torch.where(unclear, NAN, largest)
    if word is None:
        first = flat.gather(1, inside.to(torch.uint8).argmax(1, keepdim=True))[:, 0]
        chosen = torch.where(unclear | nothing, first, chosen)
    else:
        for t in range(windows.taps):
            chosen |= torch.where(nothing & inside[:, t], bit(t, word), 0).to(word)
    shape = (*x.shape[:2], *windows.counts)
    return values.reshape(shape), chosen.reshape(shape)


def canvas(windows: Windows, counts: tuple[int, ...]) -> Windows:
    """Return the same windows over the largest image on which there are exactly `counts` of them."""
    size = tuple(
        (n - 1) * s - 2 * b + d * (k - 1) + s
        for n, s, b, d, k in zip(counts, windows.stride, windows.before, windows.dilation, windows.kernel, strict=True)
    )
    return replace(windows, size=size, ceil_mode=False)


def unpool(values: Tensor, ties: Tensor, windows: Windows, nan_wins: bool) -> Tensor:
    """Return the unpooled image, (N, C, *windows.size)."""
    wide = canvas(windows, tuple(values.shape[2:]))
    flat, inside = wide.indices(values.device)
    n = values.shape[:2]
    shape = (*n, prod(wide.size))
    top = values.new_full(shape, -INF)
    hit, bad = (torch.zeros(shape, dtype=torch.bool, device=values.device) for _ in range(2))
    v, word = values.flatten(2), ties.flatten(2)
    unclear = (count(word, windows.taps) > 1) | v.isnan()
    for t in range(windows.taps):
        # No two windows have their tap t at the same position.
        at, here = flat[inside[:, t], t], has(word, t)
        clear = (here & ~unclear)[..., inside[:, t]]
        bad[..., at] |= (here & unclear)[..., inside[:, t]]
        hit[..., at] |= clear
        top[..., at] = _larger(top[..., at], torch.where(clear, v[..., inside[:, t]], -INF))
    zero = torch.zeros_like(top)
    y = torch.where(bad, NAN, torch.where(hit, top, zero)) if nan_wins else torch.where(
        hit, top, torch.where(bad, NAN, zero))  # fmt: skip
    return crop(y.reshape(*n, *wide.size), windows.size)


def crop(y: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the first positions of each axis of an image; zeros are added where it has fewer."""
    missing = [want - have for have, want in zip(y.shape[2:], size, strict=True)]
    return pad(y, [amount for m in reversed(missing) for amount in (0, m)])


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """Return the larger one; of two zeros the positive one, whose sum it is."""
    return torch.where(a > b, a, torch.where((a == 0) & (b == 0), a + b, b))
