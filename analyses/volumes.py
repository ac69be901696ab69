"""Segment a whole volume, slice by slice, prepared as the demo's slices are."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analyses.preprocessing.planes import with_neighbours
from mcaprobe.errors import InputError
from mcaprobe.volumes import read_volume, resample

PLANE = 256
QUANTILE = 0.999


def normalize(volume: np.ndarray) -> Tensor:
    """Return the volume over the 99.9 % quantile of its non-zero voxels, clipped to [0, 1], float32.

    Raises:
        InputError: no voxel is positive.
    """
    voxels = volume[volume != 0]
    top = float(np.quantile(voxels, QUANTILE)) if voxels.size else 0.0
    if not top > 0:
        raise InputError(f"Expected positive intensities, got a 99.9 % quantile of {top:g}.")
    return torch.from_numpy(np.clip(volume.astype(np.float32) / np.float32(top), 0, 1))


def load_head(path: Path) -> Tensor:
    """Return an image as the network wants it: RAS+, 1 mm, (X, Y, Z) float32 in [0, 1]."""
    return normalize(resample(read_volume(path), 1.0).data)


def slices_of(volume: Tensor, indices: range) -> Tensor:
    """Return axial slices with their neighbours as channels, (N, 7, X, Y), of a volume (X, Y, Z); edges repeat."""
    return with_neighbours(volume.permute(2, 0, 1), indices)


def centre_pad(x: Tensor, size: int = PLANE) -> tuple[Tensor, tuple[int, int]]:
    """Return x (..., X, Y) in the middle of a size x size plane of zeros, and where its first voxel lies."""
    if max(x.shape[-2:]) > size:
        raise InputError(f"Expected slices of at most {size} x {size} voxels, got {tuple(x.shape[-2:])}.")
    top, left = ((size - n) // 2 for n in x.shape[-2:])
    return F.pad(x, (left, size - x.shape[-1] - left, top, size - x.shape[-2] - top)), (top, left)


@torch.no_grad()
def segment(network: nn.Module, volume: Tensor, batch: int = 2) -> Tensor:
    """Return the class (uint8) of each voxel of a normalised volume (X, Y, Z) in [0, 1], 1 mm, RAS+."""
    parts = []
    for first in range(0, volume.shape[2], batch):
        x = slices_of(volume, range(first, min(first + batch, volume.shape[2])))
        x, (top, left) = centre_pad(x)
        y = network(x.to(memory_format=torch.channels_last)).argmax(1).to(torch.uint8)
        parts.append(y[:, top : top + volume.shape[0], left : left + volume.shape[1]])
    return torch.cat(parts).permute(1, 2, 0).contiguous()
