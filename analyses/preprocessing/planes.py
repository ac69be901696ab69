"""How does a conformed volume become slices of a plane, and how do the three planes become one segmentation?

FastSurfer (Henschel et al., NeuroImage 2020): seven adjacent slices as channels, the logits of the planes added with
weights .4 (axial), .4 (coronal) and .2 (sagittal).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe.errors import InputError

# Of a volume (L, I, A): which axis becomes height, width and slice.
AXES = {"axial": (2, 0, 1), "coronal": (0, 1, 2), "sagittal": (2, 1, 0)}
WEIGHTS = {"axial": 0.4, "coronal": 0.4, "sagittal": 0.2}
CONTEXT = 3


def checked(plane: str) -> str:
    """Return the plane; InputError where there is none of the name."""
    if plane not in AXES:
        raise InputError(f"Expected a plane among {', '.join(AXES)}, got {plane!r}.")
    return plane


def to_plane(volume: Tensor, plane: str) -> Tensor:
    """Return a view of a volume (L, I, A) whose last axis runs through the slices of a plane, (H, W, slices)."""
    return volume.permute(AXES[checked(plane)])


def slices_of(volume: Tensor, plane: str) -> Tensor:
    """Return a view of a volume (L, I, A): the slices of a plane, (slices, H, W)."""
    return to_plane(volume, plane).movedim(2, 0)


def filled(volume: Tensor, plane: str) -> Tensor:
    """Return which slices of a plane hold a voxel above 0, (slices,) bool."""
    return (slices_of(volume, plane) > 0).flatten(1).any(1)


def with_neighbours(slices: Tensor, indices: Sequence[int], context: int = CONTEXT) -> Tensor:
    """Return slices with their neighbours as channels, (N, 2 context + 1, H, W); at the ends the last one repeats.

    Args:
        slices: (slices, H, W).
        indices: Of those that are in the middle.
    """
    around = torch.as_tensor(list(indices))[:, None] + torch.arange(-context, context + 1)
    return slices[around.clamp(0, len(slices) - 1)]


def from_plane(slices: Tensor, plane: str) -> Tensor:
    """Return a view (L, I, A) of (H, W, slices): the inverse of `to_plane`."""
    axes = AXES[checked(plane)]
    return slices.permute(*(axes.index(k) for k in range(3)))


def thick_slices(volume: Tensor, plane: str, indices: Sequence[int], context: int = CONTEXT) -> Tensor:
    """Return slices of a plane with their neighbours as channels, float32 in [0, 1]; at the ends the last one repeats.

    Args:
        volume: Conformed, (L, I, A), uint8.
        indices: Of the slices.
    Returns:
        (N, 2 context + 1, H, W).
    """
    return (with_neighbours(slices_of(volume, plane), indices, context).float() / 255).clamp(0, 1)


def aggregate(logits: Mapping[str, Tensor]) -> Tensor:
    """Return the classes (L, I, A) of the largest weighted sum of the planes' logits.

    Args:
        logits: For each plane (slices, classes, H, W), of the same classes.
    Raises:
        InputError: no plane, or planes of other classes.
    """
    classes = {plane: x.shape[1] for plane, x in logits.items()}
    if len(set(classes.values())) != 1:
        raise InputError(f"Expected logits of the same classes in each plane, got {classes or 'no plane'}.")
    total = sum(WEIGHTS[checked(plane)] * volume_of(x, plane) for plane, x in logits.items())
    assert isinstance(total, Tensor)
    return total.argmax(0)


def volume_of(x: Tensor, plane: str) -> Tensor:
    """Return (classes, L, I, A) of logits (slices, classes, H, W)."""
    axes = AXES[checked(plane)]
    return x.permute(1, 2, 3, 0).permute(0, *(1 + axes.index(k) for k in range(3)))


def sagittal_to_full(full: Sequence[str], sagittal: Sequence[str]) -> NDArray[np.int64]:
    """Return for each class of the full label set the sagittal class that stands for it.

    A sagittal slice does not say on which side it lies, hence its classes are those of the right side for structures
    (`Right-...`) and of the left for the cortex (`ctx-lh-...`), as in FastSurfer.

    Args:
        full, sagittal: Names of the classes in their order.
    Raises:
        InputError: a class that no sagittal class stands for.
    """
    at = {name: i for i, name in enumerate(sagittal)}
    found = []
    for name in full:
        other = name.replace("Left-", "Right-").replace("ctx-rh-", "ctx-lh-")
        if name not in at and other not in at:
            raise InputError(f"Expected a sagittal class for {name}, found neither {name} nor {other}.")
        found.append(at.get(name, at.get(other, -1)))
    return np.array(found)
