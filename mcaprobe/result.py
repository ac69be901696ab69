"""What did a campaign find? Rows, maps and moments of each layer, from memory or from a run directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.loading import nearest
from mcaprobe.manifest import MANIFEST
from mcaprobe.maps import layer_affine, save_layer
from mcaprobe.metrics import PREFIX
from mcaprobe.plots import LayerPicture, heatmap
from mcaprobe.settings import expect_matches, matches
from mcaprobe.statistics import Estimator, IndexMoments, Moments, classes, significant_bits
from mcaprobe.storage import DamagedFile, read_csv, read_json, read_tensors
from mcaprobe.stores import FolderStore, Store
from mcaprobe.summary import Histogram, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "table.csv"
ANATOMY = "anatomy.safetensors"
COLUMNS = tuple(f.name for f in fields(Row))
TEXTS = ("layer", "operator", "region", "estimator")
COUNTS = ("elements", "samples")


def row_record(row: Row) -> dict[str, Any]:
    """Return a row as the fields of a CSV line: the shape as 1x64x32x32, None as an empty field."""
    record = {name: getattr(row, name) for name in COLUMNS}
    record["shape"] = "x".join(map(str, row.shape))
    return record


def row_of(record: dict[str, str]) -> Row:
    """Return the row of a CSV line; raise DamagedFile when a column is missing or is no number."""
    values: dict[str, Any] = {}
    try:
        for name in COLUMNS:
            text = record[name]
            if name in TEXTS:
                values[name] = text or None if name == "estimator" else text
            elif name == "shape":
                values[name] = tuple(int(size) for size in text.split("x") if size)
            elif name in COUNTS:
                values[name] = int(text)
            else:
                values[name] = float(text) if text else None
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"a line of {TABLE} cannot be read ({error})") from error
    return Row(**values)


@dataclass(frozen=True)
class Place:
    """The image that the input came from, where there is one.

    Attributes:
        anatomy: (H, W) float32.
        mask: (H, W) bool.
        affine: (4, 4) float64 of the slice as a volume with one voxel along `axis`.
        axis: Axis of the volume that the slice is across.
        space: NIfTI code of the space of the affine.
    """

    anatomy: Tensor
    mask: Tensor
    affine: Tensor
    axis: int
    space: int

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that `from_state` needs."""
        numbers = torch.tensor([self.axis, self.space])
        return {"anatomy": self.anatomy, "mask": self.mask, "affine": self.affine, "axis_and_space": numbers}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Place":
        axis, space = state["axis_and_space"].tolist()
        return cls(state["anatomy"], state["mask"], state["affine"], axis, space)

    @classmethod
    def of(cls, picture: Any) -> "Place | None":
        """Return the place of an `images.Slice`; None for None."""
        if picture is None:
            return None
        affine = torch.from_numpy(np.array(picture.affine, dtype=np.float64))
        return cls(picture.anatomy, picture.mask, affine, picture.axis, picture.space)


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
            raise InputError(f"{self.name} holds pool indices: they have a change rate, no significant bits.")
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
        place = self._result.place
        shape = tuple(place.anatomy.shape) if place is not None else self._result.image_shape
        grid = self._about["grid"] or _aligned(shape, tuple(bits.shape))
        affine = np.eye(4) if place is None else place.affine.numpy()
        axis, space = (2, 1) if place is None else (place.axis, place.space)
        about = {
            "layer": self.name, "operator": self.operator, "shape": list(self.shape),
            "samples": self._result.samples, "mode": self._result.manifest["mode"],
            "estimator": str(self._result.estimator), "input": self._result.manifest["input"]["name"],
            "field_of_view_assumed": self._about["grid"] is None,
        }  # fmt: skip
        return save_layer(path, bits, majority, shares, layer_affine(affine, grid, axis), about, axis=axis, space=space)


def _aligned(image: tuple[int, ...], layer: tuple[int, ...]) -> list[tuple[float, float]]:
    from mcaprobe.grids import aligned

    return [aligned(before, after) for before, after in zip(image, layer, strict=True)]


class Result:
    """A finished campaign: `result[layer]`, `result.table()`, `result.heatmap()`, `result.manifest`."""

    def __init__(self, manifest: dict[str, Any], rows: Sequence[Row], store: Store, place: Place | None,
                 path: Path | None = None, samples: dict[tuple[str, int | None], Tensor] | None = None) -> None:  # fmt: skip
        self.manifest = manifest
        self.rows = list(rows)
        self.store = store
        self.place = place
        self.path = path
        self._samples = samples or {}

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"Result({len(self.layers)} layers, {self.samples} samples, {self.manifest['mode']}, {where})"

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in execution order; metrics last."""
        names = list(self.manifest["layers"])
        return names + sorted(name for name in self.store.names() if name.startswith(PREFIX))

    @property
    def samples(self) -> int:
        """Number of perturbed runs."""
        return int(self.manifest["samples"])

    @property
    def estimator(self) -> Estimator:
        """The estimator of the rows and maps."""
        known = {f.name for f in fields(Estimator)}
        return Estimator(**{key: value for key, value in self.manifest["identity"].items() if key in known})

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Image axes of the input tensor (N, C, *spatial)."""
        return tuple(self.manifest["input"]["shape"][2:])

    def __contains__(self, name: object) -> bool:
        return name in self.layers or name in self.manifest["aliases"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> LayerResult:
        """Return a layer by its name or an alias; InputError with the nearest names where there is none."""
        name = self.manifest["aliases"].get(name, name)
        if name not in self.layers:
            raise InputError(f"There is no layer {name}: {nearest(name, self.layers)}.")
        return LayerResult(self, name)

    def table(self, layers: str | Sequence[str] = "*") -> list[Row]:
        """Return the rows of the layers that match the globs, in execution order."""
        globs = [layers] if isinstance(layers, str) else list(layers)
        expect_matches("The layer glob", globs, self.layers)
        return [row for row in self.rows if matches(row.layer, globs)]

    def activation(self, name: str, sample: int | None) -> Tensor:
        """Return a kept activation; sample None is the unperturbed run. InputError where it was not kept."""
        layer = self[name].name
        if self.path is not None:
            from mcaprobe.chunks import activation_path

            path = activation_path(self.path / "samples", layer, sample)
            if path.is_file():
                return read_tensors(path)["activation"]
        elif (layer, sample) in self._samples:
            return self._samples[layer, sample]
        raise InputError(f"The activations of {layer} were not kept for sample {sample}: run with --keep-samples '{layer}'.")

    def heatmap(self, layers: str | Sequence[str] = "*") -> "Figure":
        """Return a figure of the maps, from the first layer to the last, beside the anatomy."""
        globs = [layers] if isinstance(layers, str) else list(layers)
        expect_matches("The layer glob", globs, self.layers)
        chosen = [LayerResult(self, name) for name in self.layers if matches(name, globs)]
        pictures = [LayerPicture(x.name, x.bits, x.majority, x.shape) for x in chosen if x.has_map and x.bits.ndim == 2]
        if not pictures:
            raise InputError(f"None of the {len(chosen)} chosen layers has a two-dimensional map to draw.")
        manifest = self.manifest
        title = f"Significant bits of {manifest['identity']['model']} on {manifest['input']['name']}"
        machine = manifest["machine"]
        footer = (
            f"n = {self.samples}, mode {manifest['mode']}, seed {manifest['seed']}, route {manifest['route']}; "
            f"{self.estimator}; torch {manifest['versions']['torch']}, {machine['processor']}, {machine['torch_cpu_capability']}"
        )
        anatomy = None if self.place is None else self.place.anatomy
        return heatmap(pictures, anatomy, title, footer)

    def with_rows(self, rows: Sequence[Row], estimator: Estimator) -> "Result":
        """Return the same result with the rows of another estimator."""
        identity = {**self.manifest["identity"], **{f.name: getattr(estimator, f.name) for f in fields(Estimator)}}
        return Result({**self.manifest, "identity": identity}, rows, self.store, self.place, self.path, self._samples)


def load(path: str | Path) -> Result:
    """Return the result in a run directory.

    Raises:
        InputError: it is no run directory, the run is not complete, or a file is missing or damaged.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is no run directory: it has no {MANIFEST}.")
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest.get("status") != "complete":
            raise InputError(f"The run in {folder} is not complete ({manifest.get('status')}): give its mcaprobe run command again.")
        rows = [row_of(record) for record in read_csv(folder / TABLE)]
        place = Place.from_state(read_tensors(folder / ANATOMY)) if (folder / ANATOMY).exists() else None
    except DamagedFile as error:
        raise InputError(f"The run in {folder} is damaged: {error}.") from error
    return Result(manifest, rows, FolderStore(folder / "layers"), place, folder)

