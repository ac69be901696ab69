"""Where did another program put NaN? NIfTI files with a JSON file beside each that names the layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from mcaprobe.errors import InputError
from mcaprobe.html_report.groups import Shown
from mcaprobe.maps import in_volume, sidecar
from mcaprobe.models import nearest
from mcaprobe.storage import DamagedFile, read_json
from mcaprobe.volumes import first_line

PATTERN = "*_desc-nan_probseg.nii.gz"
APART = 0.01  # of a voxel: what single precision in a header may move a map


@dataclass(frozen=True, eq=False)
class NanMap:
    """A file of NaN shares.

    Attributes:
        layer: Name of the layer, as its JSON file says.
        description: What the maker says of the map.
        values: Share of the channels that are NaN, in [0, 1], (X, Y, Z).
        affine: (4, 4), to mm.
    """

    path: Path
    layer: str
    description: str
    values: NDArray[np.float32]
    affine: NDArray[np.float64]


def read_nan_maps(folder: Path) -> list[NanMap]:
    """Return the NaN maps in a folder, in the order of their names; InputError where there is none, or a bad one."""
    if not folder.is_dir():
        raise InputError(f"Expected a folder of NaN maps ({PATTERN}), got {folder}, which is {_what(folder)}.")
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise InputError(f"{folder} has no NaN maps: expected files named {PATTERN}.")
    return [_read(path) for path in paths]


def _what(path: Path) -> str:
    return "a file" if path.exists() else "not there"


def _read(path: Path) -> NanMap:
    try:
        about = read_json(sidecar(path))
    except DamagedFile as error:
        raise InputError(f"The NaN map {path} needs a JSON file beside it: {error}.") from error
    for key in ("Layer", "Description"):
        if not isinstance(about, dict) or not isinstance(about.get(key), str) or not about[key].strip():
            raise InputError(f"{sidecar(path)} has no {key}: expected an object with the texts Layer and Description.")
    try:
        image: Any = nib.load(path)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(f"The NaN map {path} cannot be read: {first_line(error)}") from error
    if values.ndim != 3:
        raise InputError(f"Expected a NaN map of three axes, got {path} of shape {values.shape}.")
    if not (np.isfinite(values).all() and values.min(initial=0.0) >= 0 and values.max(initial=0.0) <= 1):
        raise InputError(f"Expected shares of 0 to 1 in the NaN map {path}, got {_range(values)}.")
    return NanMap(path, about["Layer"], about["Description"], values, np.asarray(image.affine, dtype=np.float64))


def _range(values: NDArray[np.float32]) -> str:
    if not np.isfinite(values).all():
        return f"{int((~np.isfinite(values)).sum())} voxels that are NaN or infinite"
    return f"{values.min():g} to {values.max():g}"


def place_nan_map(found: NanMap, runs: Sequence[Shown]) -> list[tuple[Shown, str, NDArray[np.float32]]]:
    """Return the runs on whose layer a NaN map lies, the layer's name there, and the map on the layer's image axes.

    Raises:
        InputError: no run has the layer, or the map lies on the grid of none of those that have it.
    """
    having = [run for run in runs if found.layer in run.result]
    if not having:
        names = sorted({name for run in runs for name in run.result.layers})
        raise InputError(
            f"The NaN map {found.path} is of the layer {found.layer}, which no run has: {nearest(found.layer, names)}."
        )
    misfits = [_misfit(found, run) for run in having]
    if None not in misfits:
        raise InputError(f"The NaN map {found.path} does not lie on the layer {found.layer}: {misfits[0]}.")
    fitting = [run for run, misfit in zip(having, misfits, strict=True) if misfit is None]
    layers = [(run, run.result[found.layer]) for run in fitting]
    return [(run, layer.name, found.values.reshape(layer.shape[2:])) for run, layer in layers]


def _misfit(found: NanMap, run: Shown) -> str | None:
    """Return why a map is not on the grid of its layer in a run, as half a sentence; None where it is."""
    layer = run.result[found.layer]
    if not layer.spatial:
        return f"{layer.name} of shape {layer.shape} has no image axes"
    affine, axis, _ = layer.placed(layer.shape[2:])
    expected = in_volume(np.zeros((1, *layer.shape[2:]), dtype=np.uint8), axis).shape
    if expected != found.values.shape:
        return f"on {run.label} the layer has {_sizes(expected)} voxels, the file {_sizes(found.values.shape)}"
    apart = _apart(affine, found.affine, expected)
    if apart > APART * float(np.linalg.norm(affine[:3, :3], axis=0).min()):
        return f"its corners are up to {apart:.3g} mm away from those of the layer on {run.label}"
    return None


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return the largest distance between the corners of a volume under two affines, in mm."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*shape, 1]
    return float(np.abs(corners @ (a - b).T).max())


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
