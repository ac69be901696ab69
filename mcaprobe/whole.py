"""Which pieces is a whole volume made of? Slices for a two-dimensional model, patches for a three-dimensional one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.images import SLICE_AXIS, Slice, SliceOptions, framed, normalized_volume
from mcaprobe.storage import write_tensors

if TYPE_CHECKING:
    from mcaprobe.segmentation import Labels

ALL, WHOLE = "all", "whole"
Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Whole:
    """A normalized volume and its division into pieces of one shape, each a campaign with its own seed.

    Attributes:
        data: (X, Y, Z) float32, as slices are taken from it; of a stored volume (`open`) it is read piece by piece.
        mask: (X, Y, Z) bool.
        affine: (4, 4), voxel indices to mm.
        numbers: Of the pieces, in order: slice numbers in the image, or patches counted with the last axis fastest.
        axis: That slices are across; None for patches.
        size: Of a patch, in voxels; None for slices.
        tiles: Patches along each axis.
        labels: Regions of a segmentation, where there is one.
    """

    data: Any
    mask: Any
    affine: NDArray[np.float64]
    name: str
    rule: str
    space: int
    options: SliceOptions
    numbers: tuple[int, ...]
    axis: int | None
    size: Triple | None
    tiles: Triple
    labels: Labels | None = None

    @classmethod
    def read(cls, path: str | Path, options: SliceOptions, slices: str | None, patches: str | None) -> Whole:
        """Return the volume of an image file and the pieces that were asked for."""
        volume, mask, rule = normalized_volume(path, options)
        shape: Triple = volume.data.shape  # type: ignore[assignment]
        common: dict[str, Any] = {"data": volume.data, "mask": mask, "affine": volume.affine, "name": str(path),
                                  "rule": rule, "space": volume.space, "options": options}  # fmt: skip
        if patches is None:
            axis = SLICE_AXIS[options.plane]
            numbers = parse_slices(slices or ALL, volume.data, axis, options.plane)
            return cls(numbers=numbers, axis=axis, size=None, tiles=(1, 1, 1), **common)
        if options.context or options.size:
            raise InputError("Patches have no neighbouring slices (context) and no size of a slice: leave these out.")
        size = shape if patches == WHOLE else parse_patch(patches)
        tiles: Triple = tuple(-(-have // edge) for have, edge in zip(shape, size, strict=True))  # type: ignore[assignment]
        return cls(numbers=tuple(range(prod(tiles))), axis=None, size=size, tiles=tiles, **common)

    def regions(self, picture: Slice) -> dict[str, Tensor]:
        """Return the regions of a segmentation that a piece has."""
        return {} if self.labels is None else self.labels.at(picture)

    @property
    def kind(self) -> str:
        """What a piece is called."""
        return "patch" if self.axis is None else "slice"

    def identity(self) -> dict[str, Any]:
        """Return what defines the pieces."""
        if self.axis is None:
            return {"patch": list(self.size or ())}
        return {"slices": [self.numbers[0], self.numbers[-1], self.step]}

    @property
    def step(self) -> int:
        """From one slice to the next."""
        return self.numbers[1] - self.numbers[0] if len(self.numbers) > 1 else 1

    @property
    def counts(self) -> Triple:
        """Pieces along each axis of the assembled volume."""
        if self.axis is None:
            return self.tiles
        return tuple(len(self.numbers) if a == self.axis else 1 for a in range(3))  # type: ignore[return-value]

    def tile(self, number: int) -> Triple:
        """Return the place of a piece among the pieces along each axis."""
        if self.axis is None:
            return tuple(int(i) for i in np.unravel_index(number, self.tiles))  # type: ignore[return-value]
        at = self.numbers.index(number)
        return tuple(at if a == self.axis else 0 for a in range(3))  # type: ignore[return-value]

    def picture(self, number: int) -> Slice:
        """Return a piece as a model's input, with its mask and its place."""
        return self._patch(number) if self.axis is None else self._slice(number)

    def _slice(self, number: int) -> Slice:
        axis, context = SLICE_AXIS[self.options.plane], self.options.context
        count = self.data.shape[axis]
        low, high = max(0, number - context), min(count, number + context + 1)
        cut = tuple(slice(low, high) if a == axis else slice(None) for a in range(3))
        slab = np.moveaxis(np.asarray(self.data[cut]), axis, 0)
        span = np.clip(np.arange(number - context, number + context + 1), 0, count - 1) - low
        at = tuple(slice(number, number + 1) if a == axis else slice(None) for a in range(3))
        flat = np.asarray(self.mask[at]).squeeze(axis)
        return framed(slab[span], flat, self.affine, number, self.options, name=self.name, rule=self.rule,
                      space=self.space)  # fmt: skip

    def _patch(self, number: int) -> Slice:
        size, tile = self.size or (1, 1, 1), self.tile(number)
        start = [t * edge for t, edge in zip(tile, size, strict=True)]
        cut = tuple(slice(s, min(s + edge, have)) for s, edge, have in zip(start, size, self.data.shape, strict=True))
        part = np.asarray(self.data[cut])
        widths = [(0, edge - have) for edge, have in zip(size, part.shape, strict=True)]
        data = torch.from_numpy(np.ascontiguousarray(np.pad(part, widths), dtype=np.float32))
        moved = self.affine.copy()
        moved[:3, 3] += self.affine[:3, :3] @ np.array(start)
        mask = torch.from_numpy(np.ascontiguousarray(np.pad(np.asarray(self.mask[cut]), widths)))
        return Slice(data[None, None], self.name, self.rule, moved, data, mask, index=number, space=self.space)

    def assembled_affine(self) -> NDArray[np.float64]:
        """Return (4, 4), from voxels of the assembled volume to mm: a slice that was taken is one voxel along its axis.
        """
        first = np.asarray(self.picture(self.numbers[0]).affine, dtype=np.float64)
        if self.axis is not None:
            first = first.copy()
            first[:3, self.axis] *= self.step
        return first

    def store(self, path: Path) -> None:
        """Write the volume where workers read their pieces from."""
        tensors = {"data": torch.from_numpy(np.ascontiguousarray(self.data)),
                   "mask": torch.from_numpy(np.ascontiguousarray(self.mask))}  # fmt: skip
        write_tensors(path, tensors if self.labels is None else tensors | {"labels": self.labels.voxels()})

    def stored(self, path: Path) -> Whole:
        """Return the same volume with its voxels in a file: small, and only a piece at a time is in memory."""
        labels = self.labels
        if labels is not None:
            labels = labels.stored(InFile(path, "labels", labels.segmentation.labels.shape))
        data, mask = (InFile(path, key, self.data.shape) for key in ("data", "mask"))
        return replace(self, data=data, mask=mask, labels=labels)


@dataclass(frozen=True)
class InFile:
    """A tensor of a safetensors file of which parts are read."""

    path: Path
    key: str
    shape: tuple[int, ...]

    def __getitem__(self, cut: tuple[slice, ...]) -> NDArray[Any]:
        with safetensors.safe_open(self.path, framework="pt") as file:
            part: Tensor = file.get_slice(self.key)[cut]
        return part.numpy()


def parse_slices(text: str, data: NDArray[np.float32], axis: int, plane: str) -> tuple[int, ...]:
    """Return the numbers of the slices that `all`, START:STOP or START:STOP:STEP means.

    `all` is from the first slice to the last that has a voxel other than 0.
    """
    size, asked = data.shape[axis], slices_asked(text)
    if asked is None:
        filled = np.flatnonzero(data.any(axis=tuple(a for a in range(3) if a != axis)))
        return tuple(range(int(filled[0]), int(filled[-1]) + 1))
    numbers = tuple(range(size))[asked]
    if not numbers:
        raise InputError(f"The slices {text} are none of the {size} {plane} slices (0 to {size - 1}).")
    return numbers


def slices_asked(text: str) -> slice | None:
    """Return the range that START:STOP or START:STOP:STEP means, None for `all`."""
    if text == ALL:
        return None
    found = re.fullmatch(r"(-?\d*):(-?\d*)(?::(\d*[1-9]\d*))?", text)
    if found is None:
        one = f"; a single slice is --slice {text}" if text.isdigit() else ""
        raise InputError(f"Expected slices as all, START:STOP or START:STOP:STEP, got {text!r}{one}.")
    return slice(*(int(part) if part else None for part in found.groups()))


def check_pieces(slices: str | None, patches: str | None) -> None:
    """Raise InputError where a division into pieces cannot be read, whatever the image."""
    if slices is not None and patches is not None:
        raise InputError("Expected slices (a two-dimensional model) or patches (a three-dimensional one), not both.")
    if slices is not None:
        slices_asked(slices)
    if patches not in (None, WHOLE):
        parse_patch(patches)


def parse_patch(text: str) -> Triple:
    """Return the edges of a patch in voxels: `64x64x32`, or `64` for a cube."""
    parts = text.lower().split("x")
    if all(part.isdigit() and int(part) > 0 for part in parts) and len(parts) in (1, 3):
        edges = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
        return edges[0], edges[1], edges[2]
    raise InputError(f"Expected patches as XxYxZ voxels, one edge for a cube, or whole, got {text!r}.")
