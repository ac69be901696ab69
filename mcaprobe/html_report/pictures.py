"""How is the map of a layer drawn in a page? Its pixels, its place in the field of view, and the slices it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcaprobe.grids import aligned
from mcaprobe.html_report.png import grey_png, indexed_png
from mcaprobe.layer_result import LayerResult
from mcaprobe.palette import colour_image
from mcaprobe.place import Place
from mcaprobe.result import Result
from mcaprobe.statistics import Class

LEVELS = 248  # of the bits in a picture of 256 colours; steps of 0.1 bit for float32
Grid = Sequence[Sequence[float]]


def _palette() -> list[tuple[int, int, int]]:
    """Return the colours of LEVELS numbers of bits, then those of the classes but NUMBER, in the order of Class."""
    kinds = [int(kind) for kind in Class if kind is not Class.NUMBER]
    bits = np.concatenate([np.linspace(0, 1, LEVELS), np.zeros(len(kinds))])[None]
    image = colour_image(bits, np.array([[Class.NUMBER] * LEVELS + kinds]), 1.0)
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(image[0] * 255)]


PALETTE = _palette()


@dataclass(frozen=True, slots=True)
class View:
    """How the arrays of a group are drawn.

    Attributes:
        image: Image axes of the input, 1 to 3 of them.
        upwards: Whether a slice is turned so that its first axis points right and its second up.
        aspect: Width over height of the field of view.
        across: Image axis that the slices of a volume are across; None: the input is no volume.
    """

    image: tuple[int, ...]
    upwards: bool
    aspect: float
    across: int | None = None

    @property
    def slices(self) -> int:
        """How many slices the input has in one run."""
        return 1 if self.across is None else self.image[self.across]

    def box(self, grid: Grid, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a map in the field of view, in percent.

        Args:
            grid: (scale, offset) of each image axis, voxel centres. shape: Image axes of the layer.
        """
        extents = [_extent(step, size, whole) for step, size, whole in zip(grid, shape, self.image, strict=True)]
        flat = [extent for axis, extent in enumerate(extents) if axis != self.across]
        if len(flat) == 1:
            (left, right), top, bottom = flat[0], 0.0, 100.0
        elif self.upwards:
            (left, right), (low, high) = flat
            top, bottom = 100 - high, 100 - low
        else:
            (top, bottom), (left, right) = flat
        return round(left, 4), round(top, 4), round(right - left, 4), round(bottom - top, 4)

    def cut(self, values: ArrayLike) -> list[NDArray[np.generic]]:
        """Return the slices of a map of the image axes, each as it is drawn: (rows, columns)."""
        array = np.asarray(values)
        flat = [array] if self.across is None else list(np.moveaxis(array, self.across, 0))
        return [np.rot90(part) if self.upwards else np.atleast_2d(part) for part in flat]

    def nearest(self, grid: Grid, shape: tuple[int, ...]) -> list[int]:
        """Return which slice of a map of `shape` lies nearest to each slice of the input; -1 outside of it."""
        if self.across is None:
            return [0]
        return nearest(grid[self.across], shape[self.across], self.image[self.across])


def view_of(result: Result) -> View | None:
    """Return how the maps of a run are drawn; None where the input has no image axes, or more than three."""
    place, image = result.place, result.image_shape
    if place is not None:
        shape = tuple(place.anatomy.shape)
        across = place.axis if len(shape) == 3 else None
        flat = [size for axis, size in enumerate(shape) if axis != across]
        width, height = (size * edge for size, edge in zip(flat, place.voxel_size, strict=True))
        return View(shape, True, width / height, across)
    if not 1 <= len(image) <= 3 or 0 in image:
        return None
    aspect = 4.0 if len(image) == 1 else min(max(image[-1] / image[-2], 0.25), 4.0)
    return View(tuple(image), False, aspect, 0 if len(image) == 3 else None)


def slice_names(result: Result, view: View) -> list[str]:
    """Return what the slices of a volume are called: by their numbers in the image where only some of them were run."""
    pieces = result.manifest.get("pieces", {})
    numbers = pieces["numbers"] if pieces.get("kind") == "slice" else range(view.slices)
    return [f"slice {number} ({numbers[0]} to {numbers[-1]})" for number in numbers]


def grid_of(layer: LayerResult, view: View, shape: tuple[int, ...]) -> Grid | None:
    """Return (scale, offset) of each image axis of a layer, or None where its axes are not those of the image."""
    if len(shape) != len(view.image) or 0 in shape:
        return None
    if layer.grid is not None:
        return layer.grid if len(layer.grid) == len(shape) else None
    return [aligned(before, after) for before, after in zip(view.image, shape, strict=True)]


def nearest(step: Sequence[float], size: int, whole: int) -> list[int]:
    """Return the element of a layer's axis nearest to each of `whole` input voxels; -1 for those outside of it.

    Args:
        step: (scale, offset): element i lies at input voxel offset + scale * i.
        size: Elements of the axis.
    """
    scale, offset = step
    at = np.floor((np.arange(whole) - offset) / scale + 0.5 + 1e-9).astype(int)
    return [int(i) if 0 <= i < size else -1 for i in at]


def _extent(step: Sequence[float], size: int, whole: int) -> tuple[float, float]:
    """Return where the outer edges of an axis lie in the field of view, in percent."""
    scale, offset = step
    low = offset - scale / 2 + 0.5
    return 100 * low / whole, 100 * (low + scale * size) / whole


def map_pngs(layer: LayerResult, view: View, most_bits: float) -> list[str]:
    """Return each slice of a layer's map as PNG in base64, in the colours of PALETTE."""
    bits, kinds = layer.bits.numpy().astype(np.float64), layer.majority.numpy()
    return [indexed_png(part.astype(np.uint8), PALETTE) for part in view.cut(indices(bits, kinds, most_bits))]


def indices(bits: NDArray[np.float64], kinds: NDArray[np.uint8], most_bits: float) -> NDArray[np.uint8]:
    """Return the colour of each element: its bits in LEVELS steps, or that of its class."""
    share = np.clip(np.nan_to_num(bits, nan=0.0) / most_bits, 0.0, 1.0)
    steps = np.rint(share * (LEVELS - 1)).astype(np.uint8)
    return np.where(kinds == Class.NUMBER, steps, LEVELS - 1 + kinds).astype(np.uint8)


def anatomy_pngs(place: Place, view: View) -> list[str]:
    """Return each slice of the input in grey, from its darkest voxel (of all slices) to its brightest."""
    values = place.anatomy.numpy().astype(np.float64)
    low, high = float(values.min()), float(values.max())
    grey = np.zeros_like(values) if high <= low else (values - low) / (high - low)
    return [grey_png(np.rint(part.astype(np.float64) * 255).astype(np.uint8)) for part in view.cut(grey)]


def share_pngs(shares: ArrayLike, view: View) -> list[str]:
    """Return each slice of shares in [0, 1] in grey; a share above 0 is never black."""
    values = np.ceil(np.asarray(shares, dtype=np.float64) * 255 - 1e-6).astype(np.uint8)
    return [grey_png(part.astype(np.uint8)) for part in view.cut(values)]
