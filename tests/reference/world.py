"""Where in the scanner is a voxel?  Images whose voxels hold their own position in mm, written in any orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


def oblique_affine(
    flips: tuple[int, int, int], order: tuple[int, int, int], sizes: tuple[float, float, float]
) -> NDArray:
    """Return an affine of turned, anisotropic, flipped and reordered axes."""
    turn = np.eye(3)
    for axis, angle in enumerate((0.13, -0.21, 0.3)):
        i, j = [a for a in range(3) if a != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    affine = np.eye(4)
    for column in range(3):
        affine[:3, column] = turn[:, order[column]] * flips[column] * sizes[column]
    affine[:3, 3] = [11.0, -27.5, 40.25]
    return affine


def position_images(folder: Path, shape: tuple[int, int, int], affine: NDArray) -> list[Path]:
    """Write three images whose voxels hold their x, y and z in mm, computed voxel by voxel."""
    paths = []
    for component, letter in enumerate("xyz"):
        data = np.zeros(shape, dtype=np.float32)
        for index in np.ndindex(*shape):
            data[index] = sum(affine[component, a] * index[a] for a in range(3)) + affine[component, 3]
        path = folder / f"{letter}.nii.gz"
        nib.save(nib.Nifti1Image(data, affine), path)
        paths.append(path)
    return paths
