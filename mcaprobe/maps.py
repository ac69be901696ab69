"""How does a layer's map lie on the input image?  Affine, mask, and a NIfTI file that viewers overlay on the head."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mcaprobe.statistics import Class
from mcaprobe.storage import replacing, write_json

Grid = Sequence[tuple[float, float]]
# What volume 0 holds where the majority of the channels is of a class; NUMBER keeps its significant bits.
CODES: dict[Class, float] = {
    Class.NOISE: 0.0,
    Class.ZERO: -1.0,
    Class.EXACT: -2.0,
    Class.SHIFTED: -3.0,
    Class.NAN: -4.0,
    Class.INF: -5.0,
    Class.UNDEFINED: float("nan"),
}
# nibabel's own; at level 9 all maps of the demo took 10 (n = 20) to 31 (n = 2) times as long and were 9 to 20 % smaller
COMPRESSION = 1
DESCRIPTION_BYTES = 79  # of the NIfTI-1 header field descrip, without its final zero


def volume_axes(dimensions: int, axis: int) -> list[int]:
    """Return the axes of the volume that a map of 1 to 3 dimensions lies along; a slice is across `axis`."""
    if dimensions not in (1, 2, 3) or axis not in (0, 1, 2):
        raise ValueError(f"Expected 1 to 3 image axes and a slice axis 0, 1 or 2, got {dimensions} and {axis}.")
    return [a for a in range(3) if dimensions == 3 or a != axis][:dimensions]


def layer_affine(input_affine: ArrayLike, grid: Grid, axis: int = 2) -> NDArray[np.float64]:
    """Return the affine of a layer's map, so that the centre of its voxels lies where the layer's elements lie.

    Args:
        input_affine: (4, 4), of the input slice as a volume with one voxel along `axis` (`Slice.affine`), or of
            a volume.
        grid: (scale, offset) of each image axis, voxel centres (`LayerInfo.placed`).
        axis: Axis of the volume that the slice is across (`Slice.axis`); ignored for a three-dimensional grid.
    """
    step = np.eye(4)
    for a, (scale, offset) in zip(volume_axes(len(grid), axis), grid, strict=True):
        step[a, a], step[a, 3] = scale, offset
    return np.asarray(input_affine, dtype=np.float64) @ step


def layer_mask(mask: Tensor, grid: Grid, shape: Sequence[int]) -> Tensor:
    """Return the mask at the layer's elements: the value of the nearest input voxel, False outside of the input.

    Args:
        mask: Bool, the input's spatial shape.
        grid: (scale, offset) of each spatial axis.
        shape: The layer's shape; its last dimensions are the spatial ones.
    Returns:
        Bool tensor of the layer's spatial shape; halfway between two voxels the one of higher index counts.
    """
    return at_elements(mask.to(torch.bool), grid, shape, False)


def at_elements(values: Tensor, grid: Grid, shape: Sequence[int], outside: float) -> Tensor:
    """Return numbers of the input's voxels at the layer's elements, `outside` where these lie outside of the input.

    Args:
        values: The input's spatial shape, any dtype.
        grid, shape: As of `layer_mask`.
    """
    result = values
    for a, ((scale, offset), size) in enumerate(zip(grid, shape[len(shape) - len(grid) :], strict=True)):
        at = torch.arange(size, dtype=torch.float64) * scale + offset
        nearest = torch.floor(at + 0.5 + 1e-9).long()  # 1e-9: offsets such as 1/3 - 1/3 are not exactly 0
        inside = (nearest >= 0) & (nearest < values.shape[a])
        result = result.index_select(a, nearest.clamp(0, values.shape[a] - 1))
        result = result.masked_fill(~inside.view(-1, *[1] * (result.ndim - a - 1)), outside)
    return result


def coded(bits: ArrayLike, majority: ArrayLike) -> NDArray[np.float32]:
    """Return volume 0: significant bits where the majority of the channels are numbers, else the class's code."""
    values = np.array(bits, dtype=np.float32)
    kinds = np.asarray(majority)
    for kind, code in CODES.items():
        values[kinds == kind] = code
    return values


def save_layer(
    path: str | Path,
    bits: ArrayLike,
    majority: ArrayLike,
    shares: ArrayLike,
    affine: ArrayLike,
    description: str | Mapping[str, Any] = "",
    *,
    axis: int = 2,
    space: int = 1,
) -> Path:
    """Write a layer's map as a NIfTI-1 file of nine float32 volumes, and a JSON file beside it that explains them.

    Args:
        path: `*.nii.gz` or `*.nii`; both files appear whole or not at all.
        bits: (*spatial) median significant bits of the numeric channels.
        majority: (*spatial) codes of Class.
        shares: (8, *spatial) share of the channels in each class, in the order of Class.
        affine: (4, 4) of `layer_affine`, in mm.
        description: A sentence, or facts for the JSON file, of which `layer` goes in the header too.
        axis: Axis of the volume that the slice is across.
        space: NIfTI code of the space that the affine leads to (`Slice.space`).
    Returns:
        The path.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"Expected a path ending in .nii or .nii.gz, got {path}.")
    first, parts = coded(bits, majority), np.asarray(shares, dtype=np.float32)
    if parts.shape != (len(Class), *first.shape):
        raise ValueError(f"Expected shares of shape {(len(Class), *first.shape)}, got {parts.shape}.")
    facts = {"description": description} if isinstance(description, str) else dict(description)
    header = description if isinstance(description, str) else f"significant bits of {facts.get('layer', path.name)}"
    top = max(24.0, float(first[np.isfinite(first)].max(initial=0.0)))
    save_volumes(path, np.stack([first, *parts]), affine, header, axis=axis, space=space, top=top)
    write_json(sidecar(path), {**facts, **LEGEND})
    return path


def save_volumes(
    path: Path, volumes: NDArray[Any], affine: ArrayLike, header: str, *, axis: int, space: int, top: float
) -> None:
    """Write volumes on one grid as a NIfTI-1 file with mm, sform and qform, atomically and with the same bytes always.

    Args:
        volumes: (V, *spatial), of a type that NIfTI has.
        affine: (4, 4) of `layer_affine`, in mm.
        header: A sentence for the header, cut to its field.
        axis: Axis of the volume that a slice is across.
        space: NIfTI code of the space that the affine leads to.
        top: Where a viewer's colours end; they begin at 0.
    """
    data = nifti(in_volume(volumes, axis), affine, header, space=space, top=top).to_bytes()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(data, COMPRESSION, mtime=0) if path.suffix == ".gz" else data)


def nifti(data: NDArray[Any], affine: ArrayLike, header: str, *, space: int, top: float) -> nib.Nifti1Image:
    """Return an image of `data`, (X, Y, Z) or (X, Y, Z, V), with the header that `save_volumes` describes."""
    image = nib.Nifti1Image(data, None)
    image.header.set_xyzt_units("mm")
    image.set_sform(np.asarray(affine), code=space)
    image.set_qform(np.asarray(affine), code=space)
    image.header["descrip"] = header.encode("ascii", "replace")[:DESCRIPTION_BYTES]
    image.header["cal_min"] = 0.0
    image.header["cal_max"] = top
    return image


def sidecar(path: Path) -> Path:
    """Return the path of the JSON file that explains a map."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def in_volume(volumes: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return (V, *spatial) as (X, Y, Z, V), with one voxel along each axis that a map lacks; one is (X, Y, Z)."""
    present = volume_axes(volumes.ndim - 1, axis)
    shape = [1, 1, 1, len(volumes)]
    for a, size in zip(present, volumes.shape[1:], strict=True):
        shape[a] = size
    found = np.moveaxis(volumes, 0, -1).reshape(shape)
    return found[..., 0] if len(volumes) == 1 else found


LEGEND: dict[str, Any] = {
    "volumes": {
        "0": "significant bits, the median over the numeric channels; "
        "a code where more than half of the channels are of one class",
        **{str(1 + kind): f"share of the channels that are {kind.name.lower()}" for kind in Class},
    },
    "codes_of_volume_0": {kind.name.lower(): code for kind, code in CODES.items()},
    "unit": "bits",
    "space": "voxel centres in mm of the input image's space (RAS+)",
}
