"""What is in an image file?  A finite 3-D volume in RAS+ orientation with its affine, or one clear sentence."""

from __future__ import annotations

import difflib
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import rescale_affine, voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from mcaprobe.errors import InputError

TEMPLATE = "mni152"
TEMPLATE_FILE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SKULL_STRIPPED = 0.2  # share of voxels that are exactly 0 from which the zeros are taken for background


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume in RAS+ order: `data` (X, Y, Z) float32 and `affine` (4, 4) from voxel indices to mm.

    `space` is the NIfTI code of the space that the affine leads to (1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    name: str
    space: int = 1

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Return the three voxel sizes in mm."""
        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)


def existing(path: str | Path) -> Path:
    """Return the path, or raise InputError with the nearest names of its folder; `mni152` is nilearn's template."""
    if str(path) == TEMPLATE:
        spec = importlib.util.find_spec("nilearn")
        if spec is None or not spec.submodule_search_locations:
            raise InputError("The input mni152 is the template of the package nilearn, which is not installed.")
        template = Path(spec.submodule_search_locations[0]) / TEMPLATE_FILE
        if not template.is_file():
            raise InputError(f"The input mni152 is a file of nilearn 0.10 or later, which is not in {template.parent}.")
        return template
    path = Path(path)
    if path.is_dir():
        raise InputError(f"Expected an image file, got the folder {path}.")
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise InputError(f"There is no file {path}: there is no folder {folder}.")
        names = sorted(entry.name for entry in folder.iterdir())
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        hint = f"the nearest names there are {', '.join(near)}" if near else f"nothing in {folder} has a name like it"
        raise InputError(f"There is no file {path}: {hint}.")
    return path


def read_volume(path: str | Path) -> Volume:
    """Read NIfTI, MGZ or anything else that nibabel reads, in the nearest RAS+ order.

    Raises:
        InputError: no such file, no image, not 3-D, colour, without extent, or with NaN or infinity.
    """
    path = existing(path)
    try:
        image: Any = nib.load(path)
    except (ImageFileError, OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        raise InputError(f"Expected an image that nibabel can read, got {path}: {first_line(error)}") from error
    shape = tuple(int(n) for n in getattr(image, "shape", ()))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"Expected a 3-D image, got {path} of shape {tuple(image.shape)}.")
    if image.get_data_dtype().fields is not None:
        raise InputError(
            f"Expected one intensity for each voxel, got {path} with the colour type {image.get_data_dtype()}."
        )
    try:
        data = np.asanyarray(image.dataobj).reshape(shape)
    except (OSError, EOFError, ValueError, ImageFileError, zlib.error) as error:
        raise InputError(f"The image {path} is truncated or damaged: {first_line(error)}") from error
    canonical = nib.as_closest_canonical(nib.Nifti1Image(_finite(data, path), _affine(image, path)))
    values = np.asarray(canonical.dataobj, dtype=np.float32)
    return Volume(values, np.asarray(canonical.affine, dtype=np.float64), str(path), _space(image))


def _space(image: Any) -> int:
    """Return the NIfTI code of the affine's space; where there is none, or it is 0, scanner space."""
    header = image.header
    codes = [int(header[name]) for name in ("sform_code", "qform_code") if name in header]
    return next((code for code in codes if code > 0), 1)


def first_line(error: BaseException) -> str:
    """Return the first line of an error as the end of a sentence, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."


def _finite(data: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    if np.iscomplexobj(data):
        raise InputError(f"Expected real intensities, got {path} of type {data.dtype}.")
    with np.errstate(over="ignore"):
        values = np.asarray(data, dtype=np.float32)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise InputError(
            f"Expected finite intensities, got {bad} voxels of {values.size} that are NaN or infinite in {path}."
        )
    return values


def _affine(image: Any, path: Path) -> NDArray[np.float64]:
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"Expected an invertible affine, got {None if affine is None else affine.tolist()} in {path}.")
    return np.asarray(affine, dtype=np.float64)


def resample(volume: Volume, voxel_size: float, order: int = 1) -> Volume:
    """Return the volume with cubic voxels of `voxel_size` mm, same axes and same centre, spline `order`, 0 outside."""
    target = np.full(3, float(voxel_size))
    if np.allclose(volume.voxel_size, target, rtol=0, atol=1e-5):
        return volume
    shape = tuple(max(1, int(n)) for n in np.ceil(np.array(volume.data.shape) * volume.voxel_size / target - 1e-6))
    affine = rescale_affine(volume.affine, volume.data.shape, target, shape)
    source = nib.Nifti1Image(volume.data, volume.affine)
    image = resample_from_to(source, (shape, affine), order=order, mode="constant", cval=0.0)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(affine, dtype=np.float64), volume.name)


def otsu(values: NDArray[np.float32], bins: int = 256) -> float:
    """Return the threshold that maximizes the variance between the two classes of a histogram (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    first = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (first / below - (first[-1] - first) / above) ** 2
    return float(edges[1:][np.nanargmax(np.where(np.isfinite(between), between, -1.0))])


def foreground(data: NDArray[np.float32]) -> tuple[NDArray[np.bool_], str]:
    """Return a mask (X, Y, Z) of the head or brain, and the rule that made it.

    Where 20 % of the voxels or more are exactly 0 they are the background (a skull-stripped or a padded image): the
    mask is every other voxel; else it is what lies above Otsu's threshold. Holes are filled in each axial slice.
    """
    zeros = float(np.mean(data == 0))
    if zeros >= SKULL_STRIPPED:
        mask, rule = data != 0, f"non-zero voxels, holes filled ({zeros:.0%} of the image is exactly 0)"
    else:
        threshold = otsu(data)
        mask = data > threshold
        rule = f"voxels above Otsu's threshold {threshold:.4g}, holes filled ({zeros:.0%} of the image is exactly 0)"
    filled = np.stack([ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2)
    return filled, rule
