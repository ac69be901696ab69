"""Where in the input image does an element of a tensor lie, and how does an operator move it?

Every tensor that depends on the input carries a `Tag`: for each dimension an `Axis` (this dimension is image axis
`axis`; index i lies at input coordinate offset + scale * i, counted in voxel centres), None (not an image axis),
UNKNOWN (an operator without a rule touched it) or `Merged` (several dimensions flattened into one).  A rule takes the
tags of an operator's arguments to the tag of its result.  A window (convolution, pooling) is placed at its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

UNKNOWN: Literal["unknown"] = "unknown"
Step = tuple[float, float]  # (scale, offset): child index i lies at parent index offset + scale * i


@dataclass(frozen=True, slots=True)
class Axis:
    """Image axis `axis`: index i of the tensor lies at input coordinate offset + scale * i (voxel centres)."""

    axis: int
    scale: float = 1.0
    offset: float = 0.0

    def then(self, step: Step) -> Axis:
        """Return the axis of a child whose index i lies at this tensor's index step[1] + step[0] * i."""
        return Axis(self.axis, self.scale * step[0], self.offset + self.scale * step[1])


@dataclass(frozen=True, slots=True)
class Merged:
    """Several dimensions flattened into one, outermost first, as (size, dimension)."""

    parts: tuple[tuple[int, Axis | Literal["unknown"] | None], ...]


Dim = Axis | Merged | Literal["unknown"] | None


@dataclass(frozen=True, slots=True)
class Tag:
    """What is known of each dimension of a tensor.

    Attributes:
        dims: One entry for each dimension.
        source: For the indices of a pooling: the sizes above 1 and the dimensions of the pooled tensor.
    """

    dims: tuple[Dim, ...]
    source: tuple[tuple[int, ...], tuple[Dim, ...]] | None = None


def unknown(ndim: int) -> Tag:
    """Return the tag of a tensor of which only the number of dimensions is known."""
    return Tag((UNKNOWN,) * ndim)


def is_lost(dim: Dim) -> bool:
    """Return whether the place of `dim`, or of a dimension flattened into it, is unknown."""
    return dim == UNKNOWN or (isinstance(dim, Merged) and any(part == UNKNOWN for _, part in dim.parts))


def move(dim: Dim, step: Step) -> Dim:
    """Return `dim` resampled by `step`; what is not an image axis stays what it is."""
    if isinstance(dim, Axis):
        return dim.then(step)
    return dim if dim is None or step == (1.0, 0.0) else UNKNOWN


def aligned(before: int, after: int) -> Step:
    """Return the step of a resampling that keeps the field of view: the outer edges coincide."""
    scale = before / after
    return scale, (scale - 1) / 2


def regroup(dims: Sequence[Dim], before: Sequence[int], after: Sequence[int]) -> tuple[Dim, ...]:
    """Return the dimensions of a tensor of shape `before` viewed as shape `after`.

    Dimensions that are only flattened are remembered and come back when they are unflattened; one that is cut in
    pieces becomes UNKNOWN. New dimensions of size 1 are no image axes.
    """
    if tuple(before) == tuple(after):
        return tuple(dims)
    parts: list[tuple[int, Axis | Literal["unknown"] | None]] = []
    for size, dim in zip(before, dims, strict=True):
        parts += dim.parts if isinstance(dim, Merged) else [(size, dim)] if size > 1 else []
    out: list[Dim] = [None] * len(after)
    wide = [i for i, size in enumerate(after) if size > 1]
    while parts and wide:
        taken, group = [parts.pop(0)], [wide.pop(0)]
        while (have := prod(size for size, _ in taken)) != (want := prod(after[i] for i in group)):
            if have < want and parts:
                taken.append(parts.pop(0))
            elif have > want and wide:
                group.append(wide.pop(0))
            else:  # shapes that do not describe the same number of elements (an empty tensor)
                return (UNKNOWN,) * len(after)
        found = taken[0][1] if len(taken) == 1 else Merged(tuple(taken))
        for i in group:
            out[i] = found if len(group) == 1 else UNKNOWN
    return tuple(out)


def whole(dim: Dim, size: int) -> Dim:
    """Return the dimension after a reduction that keeps it with size 1: one voxel as large as them all."""
    return move(dim, (float(size), (size - 1) / 2))


def cut(dims: Sequence[Dim], dim: int, start: int, step: int = 1) -> tuple[Dim, ...]:
    """Return the dimensions of `x[..., start::step]` along `dim`."""
    return tuple(move(d, (float(step), float(start))) if i == dim else d for i, d in enumerate(dims))


def broadcast(
    shapes: Sequence[Sequence[int]], dims: Sequence[Sequence[Dim] | None], out: Sequence[int]
) -> tuple[Dim, ...]:
    """Return the dimensions of an elementwise result: for each the first argument that knows it at full size."""
    result: list[Dim] = []
    for back in range(len(out), 0, -1):
        present = [
            (shape[-back], d[-back])
            for shape, d in zip(shapes, dims, strict=True)
            if d is not None and back <= len(shape)
        ]
        full = [d for size, d in present if size == out[-back]]
        known = [d for d in full if isinstance(d, (Axis, Merged))]
        stretched = any(d is not None for size, d in present if size != out[-back])
        lost = UNKNOWN in full or (not full and stretched)
        result.append(known[0] if known else UNKNOWN if lost else None)
    return tuple(result)


def joined(dims: Sequence[Sequence[Dim]], sizes: Sequence[int], dim: int) -> tuple[Dim, ...]:
    """Return the dimensions of `cat` along `dim`: an image axis goes on where each piece starts where one ended."""
    first: list[Dim] = []
    for column in zip(*dims, strict=True):
        known = [d for d in column if isinstance(d, (Axis, Merged))]
        first.append(known[0] if known else UNKNOWN if UNKNOWN in column else None)
    pieces = [d[dim] for d in dims]
    if any(piece is not None for piece in pieces):
        start, at = pieces[0], 0
        for piece, size in zip(pieces, sizes, strict=True):
            if not isinstance(start, Axis) or piece != start.then((1.0, float(at))):
                first[dim] = UNKNOWN
            at += size
    return tuple(first)
