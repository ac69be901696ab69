"""What did a campaign find in one layer?"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.grids import aligned
from mcaprobe.maps import layer_affine, save_layer
from mcaprobe.models import nearest
from mcaprobe.statistics import IndexMoments, Moments, classes, significant_bits
from mcaprobe.steps import POOL
from mcaprobe.summary import Histogram, Row

if TYPE_CHECKING:
    from mcaprobe.result import Result


class LayerResult:
    """What is known of one layer. Maps are there for layers with image axes, moments where they were kept."""

    def __init__(self, result: "Result", name: str) -> None:
        self.name = name
        self._result = result
        about = result.manifest["layers"].get(name, {"operator": "metric", "shape": [], "grid": None})
        self.operator: str = about["operator"]
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self._about = about

    def __repr__(self) -> str:
        return f"LayerResult({self.name!r}, {self.operator}, shape {self.shape})"

    @cached_property
    def _stored(self) -> dict[str, Tensor]:
        return self._result.store.tensors(self.name)

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self._stored.items() if key.startswith(prefix)}

    @property
    def kept(self) -> bool:
        """Whether the moments of each element were kept."""
        return bool(self._tensors("moments."))

    @property
    def moments(self) -> Moments | IndexMoments:
        """The moments of each element; InputError where they were not kept."""
        state = self._tensors("moments.")
        if not state:
            raise InputError(
                f"The moments of {self.name} were not kept: run with --keep-moments '{self.name}' "
                f"(in Python: keep_moments='{self.name}'). Its map .bits and its rows are there."
            )
        return IndexMoments.from_state(state) if "changes" in state else Moments.from_state(state)

    def _floating(self) -> Moments:
        moments = self.moments
        if not isinstance(moments, Moments):
            raise InputError(f"{self.name} holds decisions: they have a change rate, no significant bits.")
        return moments

    @property
    def significant_bits(self) -> Tensor:
        """Significant bits of each element, float64, the layer's shape; NaN where the class has none."""
        return significant_bits(self._floating(), self._result.estimator)

    @property
    def classes(self) -> Tensor:
        """`statistics.Class` of each element, uint8, the layer's shape."""
        return classes(self._floating(), self._result.estimator)

    def _map(self, name: str) -> Tensor:
        if name not in self._stored:
            raise InputError(f"{self.name} of shape {self.shape} has no image axes, hence no map.")
        return self._stored[name]

    @property
    def has_map(self) -> bool:
        """Whether the layer has image axes."""
        return "bits" in self._stored

    @property
    def bits(self) -> Tensor:
        """Median significant bits over the numeric channels, float32, the layer's image axes."""
        return self._map("bits")

    @property
    def majority(self) -> Tensor:
        """Class of more than half of the channels, uint8, the layer's image axes."""
        return self._map("majority")

    @property
    def shares(self) -> Tensor:
        """Share of the channels in each class, float32, (8, image axes)."""
        return self._map("shares")

    @property
    def masks(self) -> dict[str, Tensor]:
        """The regions of the layer, bool, its image axes; stored beside kept moments only."""
        return self._tensors("mask.")

    @property
    def histogram(self) -> Histogram:
        """Counts of the scores by region, from which rows follow for any estimator within 1/16 bit."""
        return Histogram.from_state(self._tensors("histogram."))

    @property
    def rows(self) -> list[Row]:
        """The rows of the table: one for each region."""
        return [row for row in self._result.rows if row.layer == self.name]

    def row(self, region: str = "all") -> Row:
        """Return the row of a region: all, brain or background."""
        rows = {row.region: row for row in self.rows}
        if region not in rows:
            raise InputError(f"{self.name} has no region {region}: {nearest(region, list(rows))}.")
        return rows[region]

    def to_nifti(self, path: str | Path) -> Path:
        """Write the map and the shares as NIfTI (and JSON beside it) in the space of the input image."""
        bits, majority, shares = self.bits.numpy(), self.majority.numpy(), self.shares.numpy()
        affine, axis, space = self.placed(tuple(bits.shape))
        return save_layer(path, bits, majority, shares, affine, self.about(), axis=axis, space=space)

    def about(self) -> dict[str, Any]:
        """Return the facts that stand beside a map of this layer."""
        return {
            "layer": self.name, "operator": self.operator, "shape": list(self.shape),
            "samples": self._result.samples, "mode": self._result.manifest["mode"],
            "estimator": str(self._result.estimator), "input": self._result.manifest["input"]["name"],
            "field_of_view_assumed": self.field_of_view_assumed,
        }  # fmt: skip

    @property
    def spatial(self) -> bool:
        """Whether the last dimensions are image axes, so that its channels can be reduced to a map."""
        return self.image_axes is not None and self.shape[0] == 1

    @property
    def image_axes(self) -> int | None:
        """How many of the last dimensions are image axes; None where they are none.

        Before them are the batch and the channels; labels, and other decisions over the channels, have no channels.
        """
        if self._about["grid"] is not None:
            return len(self._about["grid"])
        return len(self._result.image_shape) if self._about.get("grid_assumed") else None

    @property
    def grid(self) -> Sequence[Sequence[float]] | None:
        """(scale, offset) of each image axis, in voxel centres of the input; None where it is not known."""
        return self._about["grid"]

    @property
    def field_of_view_assumed(self) -> bool:
        """Whether a map of this layer has to assume the field of view of the input."""
        return self._about["grid"] is None

    @property
    def is_index(self) -> bool:
        """Whether the layer holds decisions: indices of a pooling, labels, what an argmax chose."""
        return str(self._about.get("dtype", "float32")).startswith(("int", "uint"))

    def grid_of(self, shape: tuple[int, ...]) -> list[tuple[float, float]]:
        """Return where the image axes `shape` of the layer lie: index i of an axis at scale * i + offset of the input.

        Where that is not known, the layer is taken to have the field of view of the input.
        """
        place = self._result.place
        image = tuple(place.anatomy.shape) if place is not None else self._result.image_shape
        return [(scale, offset) for scale, offset in self.grid or _aligned(image, shape)]

    @property
    def step(self) -> str | None:
        """What the layer selects, one of `steps.STEPS`; None for activations."""
        if not self.is_index:
            return None
        return self._about.get("step", POOL)  # runs made before decisions had a step have those of poolings only

    def placed(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], int, int]:
        """Return the affine of a map of the layer's image axes `shape`, the slice's axis, the code of the space."""
        place = self._result.place
        grid = self.grid_of(shape)
        affine = np.eye(4) if place is None else place.affine.numpy()
        axis, space = (2, 1) if place is None else (place.axis, place.space)
        return layer_affine(affine, grid, axis), axis, space


def _aligned(image: tuple[int, ...], layer: tuple[int, ...]) -> list[tuple[float, float]]:
    return [aligned(before, after) for before, after in zip(image, layer, strict=True)]
