"""Which named regions does an input have? The labels of a segmentation at its voxels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe import bids
from mcaprobe.errors import InputError
from mcaprobe.images import Slice
from mcaprobe.loading import Input
from mcaprobe.maps import volume_axes
from mcaprobe.models import nearest
from mcaprobe.regions import ALL
from mcaprobe.settings import matches
from mcaprobe.storage import DamagedFile, read_csv
from mcaprobe.volumes import read_volume
from mcaprobe.whole import InFile, Whole

BACKGROUND = 0  # the label of what is no region
TAKEN = (ALL, "brain", "background")  # regions that a run has of itself


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A volume of labels.

    Attributes:
        labels: (X, Y, Z) whole numbers in RAS+ order; 0 is no region; or a file of which parts are read.
        affine: (4, 4) from voxel indices to mm.
        names: Of the labels that have one.
        path: The file.
    """

    labels: NDArray[np.int64] | InFile
    affine: NDArray[np.float64]
    names: Mapping[int, str]
    path: str

    def name(self, label: int) -> str:
        """Return the name of a label: its own where that is unique and free, else with its number."""
        own = self.names.get(label)
        if own is None:
            return f"label {label}"
        unique = list(self.names.values()).count(own) == 1 and own not in TAKEN
        return own if unique else f"{own} (label {label})"


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of a segmentation that are regions of a whole volume, looked up piece by piece.

    Attributes:
        chosen: Names by label, in the order of the labels.
        sha256: Of all that the regions depend on.
    """

    segmentation: Segmentation
    chosen: Mapping[int, str]
    sha256: str

    def at(self, picture: Slice) -> dict[str, Tensor]:
        """Return the regions of a piece, those that it has, as `regions_at` does."""
        labels = labels_at(self.segmentation, picture)
        there = set(np.unique(labels).tolist())
        return {name: torch.from_numpy(labels == label) for label, name in self.chosen.items() if label in there}

    def voxels(self) -> Tensor:
        """Return the volume of labels, int64."""
        return torch.from_numpy(np.ascontiguousarray(self.segmentation.labels))

    def stored(self, labels: InFile) -> Labels:
        """Return the same with the volume of labels in a file."""
        return replace(self, segmentation=replace(self.segmentation, labels=labels))


def read_segmentation(path: str | Path) -> Segmentation:
    """Read an image of labels, and their names from a BIDS table (columns `index` and `name`).

    The table is `NAME.tsv` beside `NAME.nii.gz`, or `..._dseg.tsv` in a folder above whose entities the image shares;
    the nearest folder counts. Without a table regions are called `label 3`.

    Raises:
        InputError: no image, labels that are no whole numbers, a table without these columns.
    """
    volume = read_volume(path)
    labels = np.rint(volume.data)
    wrong = int(np.count_nonzero(labels != volume.data))
    if wrong:
        raise InputError(f"Expected a segmentation of whole numbers, got {path} with {wrong} voxels that are none.")
    table = _table(Path(path))
    return Segmentation(labels.astype(np.int64), volume.affine, _names(table) if table else {}, str(path))


def _table(path: Path) -> Path | None:
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    own, suffix = bids.entities(stem), stem.rsplit("_", 1)[-1]
    if (path.parent / f"{stem}.tsv").is_file():
        return path.parent / f"{stem}.tsv"
    for folder in list(path.absolute().parents)[:4]:  # anat, ses-*, sub-*, the dataset
        for table in sorted(folder.glob(f"*{suffix}.tsv")):
            parts = [part for part in table.stem.split("_")[:-1] if "-" in part]
            if all(own.get(key) == value for key, _, value in (part.partition("-") for part in parts)):
                return table
        if (folder / "dataset_description.json").is_file():
            break
    return None


def _names(table: Path) -> dict[int, str]:
    try:
        lines = read_csv(table, "\t")
        return {int(line["index"]): line["name"] for line in lines}
    except (DamagedFile, KeyError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"Expected the columns index (whole numbers) and name in {table}, got {error}.") from error


def regions_at(segmentation: Segmentation, picture: Slice) -> dict[str, Tensor]:
    """Return where each label is on the input's image axes, see `labels_at`.

    Returns:
        Bool tensors of the shape of `picture.mask` by name, in the order of the labels; labels that the input does
        not have are left out.
    Raises:
        InputError: the segmentation has no label there.
    """
    labels = labels_at(segmentation, picture)
    found = [int(label) for label in np.unique(labels) if label != BACKGROUND]
    if not found:
        raise InputError(f"The segmentation {segmentation.path} has no label where the input of {picture.name} lies.")
    return {segmentation.name(label): torch.from_numpy(labels == label) for label in found}


def labels_at(segmentation: Segmentation, picture: Slice) -> NDArray[np.int64]:
    """Return the label of the nearest voxel for each element of the input's image axes, 0 outside.

    Only the box of the segmentation that the picture meets is read.
    """
    if picture.mask is None or picture.affine is None:
        raise InputError("A segmentation needs an image as input, not a tensor.")
    shape = tuple(picture.mask.shape)
    axes = volume_axes(len(shape), picture.axis)
    index = np.zeros((4, *shape))
    index[axes], index[3] = np.indices(shape), 1
    step = np.linalg.inv(segmentation.affine) @ picture.affine
    at = np.floor(np.tensordot(step, index, 1)[:3] + 0.5 + 1e-6).astype(np.int64)  # halfway: the higher index
    size = np.array(segmentation.labels.shape).reshape(3, *[1] * len(shape))
    inside = ((at >= 0) & (at < size)).all(0)
    at = np.clip(at, 0, size - 1)
    low, high = at.min(axis=tuple(range(1, at.ndim))), at.max(axis=tuple(range(1, at.ndim)))
    box = segmentation.labels[tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))]
    i, j, k = at - low.reshape(3, *[1] * len(shape))
    return np.where(inside, np.asarray(box)[i, j, k], BACKGROUND)


def with_regions(x: Input, path: str | Path, globs: Sequence[str] = ("*",)) -> Input:
    """Return an input with the regions of a segmentation file whose names match the globs.

    Raises:
        InputError: as `regions_at`, and a glob that matches no region of the input.
    """
    if x.whole is not None:
        return _with_labels(x, x.whole, path, globs)
    if x.picture is None:
        raise InputError(f"A segmentation needs an image as input, got the tensor {x.name}.")
    found = regions_at(read_segmentation(path), x.picture)
    _expect_names(x, list(found), globs)
    chosen = {name: where for name, where in found.items() if matches(name, globs)}
    return replace(x, regions=chosen, segmentation=os.fspath(path))


def _expect_names(x: Input, names: list[str], globs: Sequence[str]) -> None:
    for glob in globs:
        if not any(matches(name, [glob]) for name in names):
            raise InputError(f"No region of {x.name} is called {glob}: {nearest(glob, names)}.")


def _with_labels(x: Input, whole: Whole, path: str | Path, globs: Sequence[str]) -> Input:
    """Return a whole volume with the labels of a segmentation whose names match; its pieces look them up."""
    segmentation = read_segmentation(path)
    voxels = np.asarray(segmentation.labels)
    names = {int(label): segmentation.name(int(label)) for label in np.unique(voxels) if label != BACKGROUND}
    if not any((labels_at(segmentation, whole.picture(number)) != BACKGROUND).any() for number in whole.numbers):
        raise InputError(f"The segmentation {path} has no label where the input of {x.name} lies.")
    _expect_names(x, list(names.values()), globs)
    chosen = {label: name for label, name in names.items() if matches(name, globs)}
    digest = hashlib.sha256(f"{chosen} {voxels.shape} {segmentation.affine.tolist()}".encode() + voxels.tobytes())
    labels = Labels(segmentation, chosen, digest.hexdigest())
    return replace(x, whole=replace(whole, labels=labels), segmentation=os.fspath(path))


def regions_hash(regions: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names and places of regions."""
    digest = hashlib.sha256()
    for name, where in regions.items():
        digest.update(f"{name!r} {tuple(where.shape)} ".encode() + where.cpu().numpy().tobytes())
    return digest.hexdigest()
