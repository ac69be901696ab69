"""Which windows does a transposed convolution have? The taps that some pixel reaches an output through.

Outputs whose coordinates leave the same remainders when divided by the stride share their taps: the taps of a phase,
in reverse, slide over the image like the kernel of an ordinary convolution of stride 1.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import gcd

from nanops.errors import InputError
from nanops.windows import Windows

Axes = tuple[int, ...]
Along = tuple[slice, slice, tuple[int, int, int, int] | None]


@dataclass(frozen=True, slots=True)
class Phase:
    """Outputs that share their taps.

    Args:
        outputs: Where they lie in the result, one slice an axis.
        taps: Where their taps lie in the kernel, one slice an axis; to be reversed.
        windows: Over the image, of the reversed taps; None where no tap reaches them.
    """

    outputs: tuple[slice, ...]
    taps: tuple[slice, ...]
    windows: Windows | None


def transposed_size(size: Axes, kernel: Axes, stride: Axes, before: Axes, after: Axes, dilation: Axes) -> Axes:
    """Return the size of the result, whose ends are cut by `before` and `after`.

    Raises:
        InputError: nothing is left.
    """
    axes = zip(size, kernel, stride, before, after, dilation, strict=True)
    found = tuple((n - 1) * s - b - a + d * (k - 1) + 1 for n, k, s, b, a, d in axes)
    if min(found) < 1:
        raise InputError(f"Expected a result of at least one position an axis, got {found} of an image of {size}.")
    return found


@lru_cache(maxsize=256)
def phases(size: Axes, kernel: Axes, stride: Axes, before: Axes, after: Axes, dilation: Axes) -> tuple[Phase, ...]:
    """Return every phase that has outputs."""
    out = transposed_size(size, kernel, stride, before, after, dilation)
    axes = zip(size, kernel, stride, before, dilation, out, strict=True)
    found = []
    for parts in product(*(_along(*axis) for axis in axes)):
        reached = all(p[2] is not None for p in parts)
        tap_counts, starts, steps, counts = zip(*(p[2] or (1, 0, 1, 0) for p in parts), strict=True)
        steps_of = zip(counts, size, starts, steps, tap_counts, strict=True)
        ends = tuple(c - n - b + d * (k - 1) for c, n, b, d, k in steps_of)
        windows = Windows(size, tap_counts, (1,) * len(size), starts, ends, steps) if reached else None
        found.append(Phase(tuple(p[0] for p in parts), tuple(p[1] for p in parts), windows))
    return tuple(found)


def _along(
    size: int, kernel: int, stride: int, before: int, dilation: int, out: int
) -> list[Along]:
    """Return for each phase of one axis its outputs, its taps and (taps, padding before, dilation, windows).

    Output o = r + stride j takes pixel i = (o + before - dilation k) / stride through tap k, where that is whole.
    """
    common = gcd(stride, dilation)
    step = stride // common
    found: list[Along] = []
    for r in range(min(stride, out)):
        outputs = slice(r, None, stride)
        first = next((k for k in range(min(step, kernel)) if (r + before - dilation * k) % stride == 0), None)
        if first is None:
            found.append((outputs, slice(0, 0), None))
            continue
        taps = slice(first, None, step)
        count, wide = len(range(first, kernel, step)), dilation // common
        start = wide * (count - 1) - (r + before - dilation * first) // stride
        found.append((outputs, taps, (count, start, wide, len(range(r, out, stride)))))
    return found
