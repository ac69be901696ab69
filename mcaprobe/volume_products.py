"""What is made of the pieces of a volume? For each layer rows, a map over the whole image and what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch

from mcaprobe.assembly import Assembly, assemble
from mcaprobe.estimators import Class
from mcaprobe.layer_result import LayerResult
from mcaprobe.maps import LEGEND, coded, sidecar
from mcaprobe.metrics import PREFIX
from mcaprobe.place import ANATOMY, Place
from mcaprobe.planning import Survey
from mcaprobe.products import HEATMAP, METRICS, PIECES, save_figure
from mcaprobe.result import Result, load
from mcaprobe.storage import file_name, read_csv, write_csv, write_json
from mcaprobe.stores import SUFFIX, FolderStore
from mcaprobe.summary import Row
from mcaprobe.table import COLUMNS, TABLE, row_of, row_record
from mcaprobe.tensor_parts import save_in_slabs, tensors_in_parts
from mcaprobe.whole import InFile, Whole

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign


class VolumeProducts:
    """Makes the products of a volume in a folder; one layer's pages, and one piece, are in memory at a time.

    Args:
        whole: The volume.
        pieces: Folder of each finished piece, in order.
    """

    def __init__(self, campaign: Campaign, whole: Whole, seen: Survey, pieces: dict[int, Path], folder: Path) -> None:
        self.estimator = campaign.settings.estimator
        self.whole = whole
        self.seen = seen
        self.pieces = pieces
        self.folder = folder
        self.input_shape = tuple(campaign.input.tensor.shape[2:])
        self.rows: list[Row] = []

    @property
    def piece(self) -> tuple[int, ...]:
        """Image axes of a piece, with one voxel across a slice."""
        axes = list(self.input_shape)
        if self.whole.axis is not None:
            axes.insert(self.whole.axis, 1)
        return tuple(axes)

    @property
    def size(self) -> tuple[int, ...]:
        """Image axes of the assembled volume."""
        return tuple(edge * count for edge, count in zip(self.piece, self.whole.counts, strict=True))

    def assembly(self, name: str, shape: tuple[int, ...]) -> Assembly:
        """Return where the pieces of a layer go."""
        return Assembly.of(self.whole, self.seen.layers.get(name), shape, self.input_shape)

    def layers(self, operators: dict[str, str]) -> None:
        """Put the pieces of all layers together and write the tables."""
        tables = {number: _table(path) for number, path in self.pieces.items()}
        first = next(iter(tables.values()))
        names = {**operators, **{name: "metric" for name in first if name.startswith(PREFIX)}}
        for name, operator in names.items():
            rows = [table[name] for table in tables.values()]
            assembly = self.assembly(name, rows[0][0].shape)
            self.rows += assemble(name, operator, assembly, self.pieces, rows, self.estimator, self.folder / "layers")
        write_csv(self.folder / TABLE, [row_record(row) for row in self.rows], COLUMNS)
        records = ({"piece": number, **row_record(row)} for number, table in tables.items()
                   for rows in table.values() for row in rows)  # fmt: skip
        write_csv(self.folder / PIECES, list(records), ("piece", *COLUMNS))
        values = [{"piece": number, **line} for number, path in self.pieces.items() if (path / METRICS).exists()
                  for line in read_csv(path / METRICS)]  # fmt: skip
        if values:
            write_csv(self.folder / METRICS, values, ("piece", "metric", "run", "value"))

    def anatomy(self) -> Place:
        """Write the image as the model got it, piece by piece, and return its place."""
        whole, piece, size = self.whole, self.piece, self.size
        axis = 2 if whole.axis is None else whole.axis
        affine, place = torch.from_numpy(whole.assembled_affine()), torch.tensor([axis, whole.space])
        specs = {"anatomy": (torch.float32, size), "mask": (torch.bool, size), "affine": (affine.dtype, (4, 4)),
                 "axis_and_space": (torch.int64, (2,))}  # fmt: skip
        with tensors_in_parts(self.folder / ANATOMY, specs) as tensors:
            tensors["affine"].copy_(affine)
            tensors["axis_and_space"].copy_(place)
            for number in self.pieces:
                picture = whole.picture(number)
                at = tuple(slice(t * s, (t + 1) * s) for t, s in zip(whole.tile(number), piece, strict=True))
                for key, part in (("anatomy", picture.anatomy), ("mask", picture.mask)):
                    if part is not None:
                        tensors[key][at] = part.reshape(piece)
        with safetensors.safe_open(self.folder / ANATOMY, framework="pt") as file:
            return Place.from_state({key: file.get_tensor(key) for key in specs})

    def maps(self, manifest: dict[str, Any], place: Place) -> None:
        """Write the map of each layer that has one, and a picture of the slice with most of the head."""
        result = Result(manifest, self.rows, FolderStore(self.folder / "layers"), place, self.folder)
        (self.folder / "maps").mkdir(exist_ok=True)
        for name in manifest["layers"]:
            path = self.folder / "layers" / (file_name(name) + SUFFIX)
            with safetensors.safe_open(path, framework="pt") as file:
                shape = tuple(file.get_slice("bits").get_shape()) if "bits" in file.keys() else ()  # noqa: SIM118
            if shape:
                _write_map(result[name], path, shape, self.folder / "maps" / f"{file_name(name)}.nii.gz")
        if self.whole.axis is not None:
            fullest = max(self.pieces, key=lambda number: int(self._head(number)))
            found = load(self.pieces[fullest])
            if any(found[name].has_map for name in found.layers):
                save_figure(found.heatmap(), self.folder / HEATMAP)

    def _head(self, number: int) -> int:
        mask = self.whole.picture(number).mask
        return 0 if mask is None else int(mask.sum())


def _write_map(layer: LayerResult, path: Path, shape: tuple[int, ...], target: Path) -> None:
    """Write the map of a layer and the JSON beside it as `LayerResult.to_nifti` does, a slab at a time in memory."""
    volumes: list[Any] = [_Coded(path, shape), *(_Share(path, shape, int(kind)) for kind in Class)]
    affine, _, space = layer.placed(shape)
    top = 24.0
    for k in range(shape[2]):
        slab = volumes[0][:, :, k]
        top = max(top, float(slab[np.isfinite(slab)].max(initial=0.0)))
    about = layer.about()
    save_in_slabs(target, volumes, affine, f"significant bits of {layer.name}", space=space, top=top)
    write_json(sidecar(target), {**about, **LEGEND})


class _Coded:
    """Volume 0 of a map, read slab by slab."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.bits, self.majority = InFile(path, "bits", shape), InFile(path, "majority", shape)

    def __getitem__(self, at: Any) -> Any:
        cut = (slice(None), slice(None), slice(at[2], at[2] + 1))
        return coded(self.bits[cut], self.majority[cut])[:, :, 0]


class _Share:
    """The share of one class of a map, read slab by slab."""

    def __init__(self, path: Path, shape: tuple[int, ...], kind: int) -> None:
        self.shape, self.kind = shape, kind
        self.shares = InFile(path, "shares", (len(Class), *shape))

    def __getitem__(self, at: Any) -> Any:
        cut = (slice(self.kind, self.kind + 1), slice(None), slice(None), slice(at[2], at[2] + 1))
        return self.shares[cut][0, :, :, 0]


def _table(piece: Path) -> dict[str, list[Row]]:
    """Return the rows of each layer of a piece."""
    table: dict[str, list[Row]] = {}
    for record in read_csv(piece / TABLE):
        row = row_of(record)
        table.setdefault(row.layer, []).append(row)
    return table
