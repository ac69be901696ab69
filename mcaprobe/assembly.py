"""How do the pieces of a volume become one layer? Put side by side, counted together, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcaprobe.estimators import Class, Estimator
from mcaprobe.geometry import LayerInfo
from mcaprobe.histogram import Histogram
from mcaprobe.rows import Row, share_fields
from mcaprobe.storage import file_name
from mcaprobe.stores import SUFFIX, FolderStore
from mcaprobe.tensor_parts import Spec, tensors_in_parts
from mcaprobe.whole import Whole

SEAM = 1e-6  # of a voxel: by how much the elements of neighbouring patches may miss the common grid


@dataclass(frozen=True)
class Assembly:
    """Where the pieces of one layer go.

    Attributes:
        shape: Of the layer in one piece.
        spatial: How many of its last dimensions are image axes; 0 where none: then pieces lie along a new last axis.
        mapped: Whether the elements of all pieces lie on one grid, so that there is a map.
    """

    whole: Whole
    shape: tuple[int, ...]
    spatial: int
    mapped: bool

    @classmethod
    def of(cls, whole: Whole, info: LayerInfo | None, shape: tuple[int, ...], input_shape: Sequence[int]) -> Assembly:
        """Return the assembly of a layer; info None is a metric.

        Args:
            input_shape: Image axes of a piece.
        """
        spatial = len(input_shape) if info is not None and info.spatial else 0
        if info is None or not spatial:
            return cls(whole, shape, 0, False)
        steps = zip(info.placed(tuple(input_shape)), info.shape[-spatial:], input_shape, whole.counts, strict=False)
        fits = whole.axis is not None or all(
            count == 1 or abs(step[0] * size - edge) <= SEAM for step, size, edge, count in steps
        )
        return cls(whole, shape, spatial, fits)

    @property
    def assembled(self) -> tuple[int, ...]:
        """Shape of the whole layer."""
        if not self.spatial:
            return (*self.shape, len(self.whole.numbers))
        return (*self.shape[: -self.spatial], *self.volume)

    @property
    def volume(self) -> tuple[int, ...]:
        """Image axes of the whole layer, three."""
        return tuple(size * count for size, count in zip(self._piece(), self.whole.counts, strict=True))

    def _piece(self) -> tuple[int, ...]:
        """Return the image axes of a piece with one voxel across a slice."""
        axes = list(self.shape[-self.spatial :])
        if self.whole.axis is not None:
            axes.insert(self.whole.axis, 1)
        return tuple(axes)

    def spec(self, tensor: Tensor) -> Spec:
        """Return type and shape of what the pieces of a tensor become."""
        if not tensor.ndim:
            return tensor.dtype, ()
        if not self.spatial:
            return tensor.dtype, (*tensor.shape, len(self.whole.numbers))
        return tensor.dtype, (*tensor.shape[: -self.spatial], *self.volume)

    def put(self, target: Tensor, part: Tensor, number: int) -> None:
        """Copy the part of a piece where it belongs."""
        if not part.ndim:
            target.copy_(part)
        elif not self.spatial:
            target[..., self.whole.numbers.index(number)] = part
        else:
            size, tile = self._piece(), self.whole.tile(number)
            at: tuple[Any, ...] = tuple(slice(t * s, (t + 1) * s) for t, s in zip(tile, size, strict=True))
            target[(..., *at)] = part.reshape(*part.shape[: -self.spatial], *size)


def assemble(
    name: str, operator: str, assembly: Assembly, pieces: dict[int, Path], rows: Sequence[Sequence[Row]],
    estimator: Estimator, folder: Path,
) -> list[Row]:  # fmt: skip
    """Write the file of a layer from those of its pieces, and return its rows.

    Args:
        pieces: Folder of each piece, in order.
        rows: Of the layer in each piece, in the same order.
        folder: For the files of layers.
    """
    regions = regions_of(rows, assembly.whole)
    histogram: Histogram | None = None
    specs: dict[str, Spec] = {}
    for path in pieces.values():
        state = FolderStore(path / "layers").tensors(name)
        mine = _spread(Histogram.from_state(_part(state, "histogram.")), regions)
        histogram = mine if histogram is None else _added(histogram, mine)
        for key, tensor in state.items():
            if _kept(key, assembly):
                specs.setdefault(key, assembly.spec(tensor))
    if histogram is None:
        raise ValueError("Expected at least one piece.")
    histogram = replace(histogram, shape=assembly.assembled)
    counts = {f"histogram.{key}": value for key, value in histogram.state().items()}
    specs.update({key: (value.dtype, tuple(value.shape)) for key, value in counts.items()})
    folder.mkdir(parents=True, exist_ok=True)
    about = {"layer": name, "operator": operator}
    with tensors_in_parts(folder / (file_name(name) + SUFFIX), specs, about) as tensors:
        for key, value in counts.items():
            tensors[key].copy_(value)
        for number, path in pieces.items():
            for key, part in FolderStore(path / "layers").tensors(name).items():
                if _kept(key, assembly):
                    assembly.put(tensors[key], part, number)
    table = [{row.region: row for row in part} for part in rows]
    return [_row([part[region] for part in table if region in part], histogram, assembly.assembled, estimator)
            for region in regions]  # fmt: skip


def regions_of(rows: Sequence[Sequence[Row]], whole: Whole) -> tuple[str, ...]:
    """Return the regions that any piece of a layer has: all, brain, background, labels in their order."""
    labels = [] if whole.labels is None else list(whole.labels.chosen.values())
    there = dict.fromkeys(row.region for part in rows for row in part)
    return tuple(sorted(there, key=lambda region: 1 + labels.index(region) if region in labels else 0))


def _spread(histogram: Histogram, regions: tuple[str, ...]) -> Histogram:
    """Return a histogram of these regions, those that a piece does not have without elements."""
    if histogram.regions == regions:
        return histogram
    at = torch.tensor([regions.index(region) for region in histogram.regions])
    counts, fixed, low = (
        part.new_zeros(len(regions), *part.shape[1:]).index_copy(0, at, part)
        for part in (histogram.counts, histogram.fixed, histogram.low_snr)
    )
    return replace(histogram, regions=regions, counts=counts, fixed=fixed, low_snr=low)


def _kept(key: str, assembly: Assembly) -> bool:
    """Return whether a tensor of a piece is put beside those of the others; histograms are added up."""
    return not key.startswith("histogram.") and (assembly.mapped or key.startswith(("moments.", "mask.")))


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _added(one: Histogram, two: Histogram) -> Histogram:
    return replace(one, counts=one.counts + two.counts, fixed=one.fixed + two.fixed, low_snr=one.low_snr + two.low_snr)


def _row(parts: Sequence[Row], histogram: Histogram, shape: tuple[int, ...], estimator: Estimator) -> Row:
    """Return the row of a region of the whole layer: means and shares exactly, the percentile to 1/16 bit.

    The percentile of the convention `published` is None, since a histogram does not have its elements.
    """
    first, elements = parts[0], sum(part.elements for part in parts)
    common: dict[str, Any] = {"layer": first.layer, "operator": first.operator, "region": first.region,
                              "shape": shape, "elements": elements, "samples": first.samples}  # fmt: skip
    if histogram.is_index:
        rate = _mean([(part.index_change_rate, part.elements) for part in parts])
        return Row(index_change_rate=rate, **common)
    kinds = [sum(_count(part, kind) for part in parts) for kind in Class]
    exact = estimator.convention != "published"
    return Row(
        bits_mean=_mean([(part.bits_mean, _count(part, Class.NUMBER)) for part in parts]),
        bits_p05=histogram.row(estimator, first.region).bits_p05 if exact else None,
        share_snr_below_1=_mean([(part.share_snr_below_1, part.elements) for part in parts]),
        estimator=first.estimator,
        **share_fields(kinds),
        **common,
    )


def _count(row: Row, kind: Class) -> int:
    share = getattr(row, f"share_{kind.name.lower()}")
    return 0 if share is None else round(share * row.elements)


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    """Return the mean of values that stand for so many elements each."""
    there = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in there)
    return fsum(value * weight for value, weight in there) / total if total else None

