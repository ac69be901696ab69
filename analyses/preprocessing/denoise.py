"""How does FONDUE denoise an image? In slices across each axis, the three results averaged, on the image's own grid.

Adame-Gonzalez et al. 2023. Nothing here is FONDUE's code; it follows the steps that its description states.
"""

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from analyses.preprocessing.conform import checked_image
from analyses.preprocessing.planes import with_neighbours
from mcaprobe.errors import InputError

ANISOTROPIC = 2.0  # largest over smallest voxel size from which on only slices across the largest are denoised
Network = Callable[[Tensor, float], Tensor]


@torch.inference_mode()
def denoise(image: SpatialImage, network: Network, batch: int = 1) -> nib.Nifti1Image:
    """Return the denoised image, float32, on the grid and in the range of the image.

    Args:
        network: Takes slices (N, 7, H, W) in [0, 1] and the size of their pixels in mm; returns (N, 1, H, W).
        batch: Slices at once.
    Raises:
        InputError: not 3-D, NaN or infinite intensities, one intensity everywhere, or an affine without an inverse.
    """
    data, affine = checked_image(image)
    unit, least, largest = to_unit(torch.from_numpy(np.ascontiguousarray(data, np.float32)))
    sizes = voxel_sizes(affine)
    found = [along(unit, axis, network, in_plane(sizes, axis), batch) for axis in axes_of(sizes)]
    mean = torch.stack(found).mean(0)
    return nib.Nifti1Image((mean * (largest - least) + least).numpy(), affine)


def to_unit(volume: Tensor) -> tuple[Tensor, float, float]:
    """Return a volume in [0, 1], its smallest and its largest value; InputError where they are the same."""
    least, largest = float(volume.min()), float(volume.max())
    if not largest > least:
        raise InputError(f"Expected intensities that differ, got {least:g} everywhere.")
    return (volume - least) / (largest - least), least, largest


def axes_of(sizes: Any) -> tuple[int, ...]:
    """Return the axes across which slices are denoised: all, or the one of the thick slices of an anisotropic image."""
    thickest = int(np.argmax(sizes))
    return (thickest,) if sizes[thickest] >= ANISOTROPIC * min(sizes) else (0, 1, 2)


def in_plane(sizes: Any, axis: int) -> float:
    """Return the size of a pixel of the slices across an axis, in mm: that of the first of their axes, as published."""
    return float(next(size for k, size in enumerate(sizes) if k != axis))


def along(volume: Tensor, axis: int, network: Network, zoom: float, batch: int) -> Tensor:
    """Return a volume in [0, 1] denoised in slices across one axis, each with its neighbours; the last ones repeat."""
    slices = volume.movedim(axis, 0)
    parts = [
        network(with_neighbours(slices, part.tolist()), zoom)[:, 0] for part in torch.arange(len(slices)).split(batch)
    ]
    return torch.cat(parts).movedim(0, axis)
