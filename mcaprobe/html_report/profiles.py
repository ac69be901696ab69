"""What are the cells of the heatmap of layers? Slices of an image, of a volume, or bands across one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe.html_report.groups import Group
from mcaprobe.html_report.pictures import Grid, View, grid_of, nearest, slice_names, view_of
from mcaprobe.layer_result import LayerResult
from mcaprobe.maps import layer_mask
from mcaprobe.metrics import PREFIX
from mcaprobe.place import Place
from mcaprobe.regions import ALL
from mcaprobe.result import Result
from mcaprobe.rows import Row
from mcaprobe.statistics import Class

BANDS = 24
REGIONS = ("brain", "background", ALL)
_ENDS = {"axial": ("posterior", "anterior"), "coronal": ("inferior", "superior"), "sagittal": ("inferior", "superior")}
# Mean bits of the elements that are numbers, None without any, and the share of each class; None: nothing is known.
Cell = list[float | None] | None


@dataclass(frozen=True, slots=True)
class Heat:
    """The heatmap of a group.

    Attributes:
        what: What the columns are, as a sentence.
        columns: Their names.
        ends: What is written below the first and the last; empty where each column's name is short enough.
        rows: Of each layer, by region, a cell for each column.
    """

    what: str
    columns: list[str]
    ends: tuple[str, str] | tuple[()]
    rows: dict[str, dict[str, list[Cell]]]


def heat_of(group: Group) -> Heat:
    """Return the heatmap: slices as columns where there are several, else positions across the slice."""
    if len(group.runs) > 1:
        return _of_slices(group)
    view = view_of(group.first)
    if view is None:
        return _of_slices(group)
    return _across(group, view)


def _of_slices(group: Group) -> Heat:
    rows: dict[str, dict[str, list[Cell]]] = {}
    tables = [_by_layer(run.result.rows) for run in group.runs]
    for name in group.layers:
        found = {region: [cell_of(table.get(name, {}).get(region)) for table in tables] for region in REGIONS}
        if any(cell is not None for cells in found.values() for cell in cells):
            rows[name] = {region: cells for region, cells in found.items() if any(cell is not None for cell in cells)}
    one = len(group.runs) == 1
    what = "One column: the whole input." if one else "Columns are the runs; a cell is a row of the table of layers."
    labels = [run.label for run in group.runs]
    return Heat(what, labels, () if len(labels) <= 6 else (labels[0], labels[-1]), rows)


def _by_layer(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.layer, {})[row.region] = row
    return found


def cell_of(row: Row | None) -> Cell:
    """Return the cell of a row of the table; None without bits and classes, as decisions are."""
    if row is None or row.share_number is None:
        return None
    shares = [getattr(row, f"share_{kind.name.lower()}") for kind in Class]
    return [_rounded(row.bits_mean), *(_rounded(share) for share in shares)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _across(group: Group, view: View) -> Heat:
    """Return the heatmap of a single run: slices of its volume, or bands across its slice."""
    result, place = group.first, group.first.place
    axis, names, ends = _bands(result, view)
    rows: dict[str, dict[str, list[Cell]]] = {}
    for name in result.layers:
        layer = result[name]
        grid = grid_of(layer, view, tuple(layer.bits.shape)) if layer.has_map and not name.startswith(PREFIX) else None
        if grid is not None:
            rows[name] = {
                region: profile(layer, grid, axis, view.image[axis], len(names), where)
                for region, where in _regions(layer, grid, place).items()
            }
    if view.across is not None:
        which = "slices of the volume across its first image axis" if place is None else f"{place.plane} slices"
        what = f"Columns are the {which}, at the input's resolution."
    else:
        what = (
            f"Columns are {len(names)} bands across the slice, from {ends[0]} to {ends[1]}; a cell is the mean of the "
            "map in the band, weighted by position. Layers without a map are left out."
        )
    return Heat(what, names, ends, rows)


def _bands(result: Result, view: View) -> tuple[int, list[str], tuple[str, str]]:
    """Return the axis that the columns follow, their names, and what its ends are called."""
    place = result.place
    if view.across is not None:
        return view.across, slice_names(result, view), ("first slice", "last slice")
    axis = 1 if view.upwards else 0
    ends = _ENDS[place.plane] if place is not None else ("first row", "last row")
    count = min(BANDS, view.image[axis])
    return axis, [f"band {k + 1} of {count}, from {ends[0]}" for k in range(count)], ends


def _regions(layer: LayerResult, grid: Grid, place: Place | None) -> Mapping[str, Tensor]:
    shape = layer.bits.shape
    everywhere = torch.ones(shape, dtype=torch.bool)
    if place is None:
        return {ALL: everywhere}
    brain = layer_mask(place.mask, [(scale, offset) for scale, offset in grid], layer.shape)
    return {"brain": brain, "background": ~brain, ALL: everywhere}


def profile(layer: LayerResult, grid: Grid, axis: int, whole: int, count: int, where: Tensor) -> list[Cell]:
    """Return the cells of a layer's map along one image axis.

    Args:
        grid: (scale, offset) of each image axis of the map.
        axis: The image axis that the columns follow; `whole`: its voxels in the input.
        count: Of the columns, each of as many voxels as the others, or one more.
        where: Bool, the map's shape: the region.
    """
    others = tuple(a for a in range(where.ndim) if a != axis)
    region = where.numpy()
    bits, shares = layer.bits.numpy().astype(np.float64), layer.shares.numpy().astype(np.float64)
    known = region & (shares[Class.NUMBER] > 0) & ~np.isnan(bits)
    # One number for each plane across the axis; then one for each column, from the plane nearest to each voxel.
    places, numbers = region.sum(axis=others), known.sum(axis=others)
    sums = np.where(known, bits, 0.0).sum(axis=others)
    parts = np.where(region, shares, 0.0).sum(axis=tuple(a + 1 for a in others))
    planes = np.array(nearest(grid[axis], where.shape[axis], whole))
    columns = np.array_split(np.arange(whole), count)
    return [_column(planes[voxels], places, numbers, sums, parts) for voxels in columns]


def _column(
    planes: NDArray[np.int64],
    places: NDArray[np.int64],
    numbers: NDArray[np.int64],
    sums: NDArray[np.float64],
    parts: NDArray[np.float64],
) -> Cell:
    inside = planes[planes >= 0]
    total, counted = int(places[inside].sum()), int(numbers[inside].sum())
    if not total:
        return None
    mean = float(sums[inside].sum()) / counted if counted else None
    return [_rounded(mean), *(_rounded(float(part[inside].sum()) / total) for part in parts)]
