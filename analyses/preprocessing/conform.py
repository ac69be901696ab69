"""How does an image become FastSurfer's: 256 voxels of 1 mm along each axis, LIA, uint8? And how do labels get back?

Henschel et al., FastSurfer (NeuroImage 2020), after FreeSurfer's mri_convert --conform. Nothing here is FastSurfer's
code; it follows the steps that its description states.
"""

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from mcaprobe.errors import InputError

SIZE = 256
BINS, QUANTILE = 1000, 0.999
# The axes of a conformed image run to the left, to the feet and to the front.
LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
Array = NDArray[Any]


def conform(image: SpatialImage) -> nib.Nifti1Image:
    """Return an image as FastSurfer wants it: (256, 256, 256) uint8, 1 mm, LIA, with the same centre.

    Intensities are interpolated linearly, and `rescale`d where they are no uint8; a conformed image stays as it is.

    Raises:
        InputError: not 3-D, NaN or infinite intensities, no positive ones, or an affine without an inverse.
    """
    data, affine = checked_image(image)
    if is_conformed(image):
        return nib.Nifti1Image(data, affine)
    target = conformed_affine(data.shape, affine)
    moved = resample(data.astype(np.float32), affine, (SIZE,) * 3, target, order=1)
    if image.get_data_dtype() == np.uint8:
        return nib.Nifti1Image(np.clip(np.rint(moved), 0, 255).astype(np.uint8), target)
    return nib.Nifti1Image(rescale(moved, data), target)


def conform_labels(labels: SpatialImage) -> nib.Nifti1Image:
    """Return labels on the grid of `conform`, each voxel that of the nearest one; their type stays.

    Raises:
        InputError: as of `conform`.
    """
    data, affine = checked_image(labels)
    target = conformed_affine(data.shape, affine)
    return nib.Nifti1Image(resample(data, affine, (SIZE,) * 3, target, order=0), target)


def restore_labels(labels: SpatialImage, image: SpatialImage) -> nib.Nifti1Image:
    """Return labels on the grid of an image, each voxel that of the nearest one, 0 outside.

    Raises:
        InputError: as of `conform`.
    """
    data, affine = checked_image(labels)
    onto, target = checked_image(image)
    return nib.Nifti1Image(resample(data, affine, onto.shape, target, order=0), target)


def is_conformed(image: SpatialImage) -> bool:
    """Return whether an image is one already: by its shape, type, voxel size and axes."""
    same = image.shape == (SIZE,) * 3 and image.get_data_dtype() == np.uint8
    return same and image.affine is not None and np.allclose(image.affine[:3, :3], LIA, atol=1e-4)


def conformed_affine(shape: tuple[int, ...], affine: Array) -> Array:
    """Return the affine (4, 4) of the conformed image: its middle is that of an image of this shape and affine."""
    middle = affine @ np.array([*(n / 2 for n in shape), 1.0])
    out = np.eye(4)
    out[:3, :3] = LIA
    out[:3, 3] = middle[:3] - LIA @ np.full(3, SIZE / 2)
    return out


def resample(data: Array, affine: Array, shape: tuple[int, ...], target: Array, order: int) -> Array:
    """Return data (X, Y, Z) on another grid by splines of an order, 0 outside; the type of data stays."""
    voxels = np.linalg.inv(affine) @ target
    whole = np.rint(voxels)
    voxels = np.where(np.abs(voxels - whole) < 1e-6, whole, voxels)
    moved: Array = ndimage.affine_transform(data, voxels, output_shape=shape, order=order, mode="constant", cval=0)
    return moved


def rescale(moved: Array, data: Array) -> NDArray[np.uint8]:
    """Return intensities as uint8: from the smallest of `data` to its 99.9 % quantile; zeros stay zero.

    The quantile is the edge of a histogram of 1000 bins, and .1 % of the voxels that are not 0 lie above it.

    Raises:
        InputError: no intensity lies above the smallest.
    """
    least, largest = float(data.min()), float(data.max())
    counts, _ = np.histogram(data, BINS)
    width = (largest - least) / BINS
    above = int((1 - QUANTILE) * np.count_nonzero(np.abs(data) >= 1e-15))
    below = np.concatenate([[0], np.cumsum(counts)])
    reached = np.flatnonzero(below >= data.size - above)
    top = least + width * (int(reached[0]) - 2 if len(reached) else BINS)
    if not top > least:
        raise InputError(f"Expected intensities that differ, got a smallest of {least:g} and a top of {top:g}.")
    scaled = np.clip((moved - least) * (255 / (top - least)), 0, 255)
    scaled[moved == 0] = 0
    return np.rint(scaled).astype(np.uint8)


def checked_image(image: SpatialImage) -> tuple[Array, Array]:
    """Return the data (X, Y, Z) and the affine of an image."""
    data: Array = np.asanyarray(image.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or 0 in data.shape:
        raise InputError(f"Expected a 3-D image, got one of shape {image.shape}.")
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        raise InputError(f"Expected finite intensities, got {bad} voxels that are NaN or infinite.")
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError("Expected an affine that has an inverse.")
    return data, np.asarray(affine, np.float64)
