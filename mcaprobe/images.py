"""Which tensor does a model get from a file?  One slice of a head with its neighbours, or a saved tensor as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.tensor_files import TENSOR_SUFFIXES, load_tensor
from mcaprobe.volumes import Volume, existing, foreground, read_volume, resample

__all__ = ["Slice", "SliceOptions", "load_slice", "load_tensor"]

Plane = Literal["axial", "coronal", "sagittal"]
Intensity = Literal["quantile", "minmax", "none"]
SLICE_AXIS: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # the RAS+ axis that a slice is across
QUANTILE = 0.999


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """How a slice becomes a tensor.

    Attributes:
        plane: axial, coronal or sagittal.
        index: Slice number along the plane's axis after resampling, negative from the end; None: the slice with the
            most non-zero voxels.
        context: Neighbouring slices on each side as further channels; the outermost slice repeats at the edge.
        size: (H, W) to pad with 0 or crop to, around the centre; None: as it is.
        voxel_size: Edge of the cubic voxels in mm to resample to, linearly; None: as it is.
        intensity: "quantile" divides by the 99.9 % quantile of the volume's non-zero voxels and clips to [0, 1];
            "minmax" maps the volume to [0, 1]; "none" leaves the intensities.
        mask: Path of a brain mask on the grid of the image; None: a rule, which the slice states.
    """

    plane: Plane = "axial"
    index: int | None = None
    context: int = 0
    size: tuple[int, int] | None = None
    voxel_size: float | None = None
    intensity: Intensity = "quantile"
    mask: str | Path | None = None

    def __post_init__(self) -> None:
        if self.plane not in get_args(Plane):
            raise InputError(f"Expected the plane axial, coronal or sagittal, got {self.plane!r}.")
        if self.intensity not in get_args(Intensity):
            raise InputError(f"Expected the intensity quantile, minmax or none, got {self.intensity!r}.")
        if self.context < 0:
            raise InputError(f"Expected 0 or more neighbouring slices as context, got {self.context}.")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise InputError(f"Expected the size as two positive numbers (H, W), got {tuple(self.size)}.")
        if self.voxel_size is not None and not 0 < self.voxel_size < float("inf"):
            raise InputError(f"Expected a positive voxel size in mm, got {self.voxel_size}.")


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a head as a model's input, or a saved tensor (then only `tensor`, `name` and `mask_rule` are set).

    Attributes:
        tensor: (1, 2 * context + 1, H, W) float32; the image's own slice is channel `context`.
        name: The file it came from.
        mask_rule: How the mask was made, in words.
        affine: (4, 4), from (i, j, k) of the plane as a RAS+ volume with one voxel along `axis`, to mm.
        anatomy: (H, W) float32, channel `context`.
        mask: (H, W) bool, the head or brain; False where the slice was padded.
        plane: axial (H, W are right, anterior), coronal (right, superior) or sagittal (anterior, superior).
        index: Number of the slice along `axis`.
        space: NIfTI code of the space that the affine leads to (1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    """

    tensor: Tensor
    name: str
    mask_rule: str
    affine: NDArray[np.float64] | None = None
    anatomy: Tensor | None = None
    mask: Tensor | None = None
    plane: Plane = "axial"
    index: int | None = None
    space: int = 1

    @property
    def axis(self) -> int:
        """Return the axis of the RAS+ volume that has one voxel."""
        return SLICE_AXIS[self.plane]


def load_slice(path: str | Path, options: SliceOptions | None = None) -> Slice:
    """Return the slice of an image file that `options` ask for, or the tensor of a tensor file.

    Args:
        path: NIfTI, MGZ or another volume that nibabel reads; `mni152` for the T1 template that nilearn ships; or a
            tensor of any shape in `.npy`, `.safetensors` (with one tensor) or `.pt` (read with weights_only=True).
    Raises:
        InputError: what is wrong with the file, the mask or the slice, in one sentence.
    """
    options = SliceOptions() if options is None else options
    source = existing(path)
    if source.suffix.lower() in TENSOR_SUFFIXES:
        return Slice(load_tensor(source), str(path), "no mask: the input is a tensor")
    volume, mask, rule = _masked_volume(source, options)
    axis = SLICE_AXIS[options.plane]
    index = _index(volume, axis, options)
    span = np.clip(np.arange(index - options.context, index + options.context + 1), 0, volume.data.shape[axis] - 1)
    slab = np.moveaxis(volume.data.take(span, axis=axis), axis, 0)
    slab = _normalized(slab, volume, options.intensity)
    if not slab[options.context].any():
        raise InputError(f"The {options.plane} slice {index} of {path} is empty: all of its voxels are 0.")
    flat: NDArray[Any] = np.asarray(mask.take(index, axis=axis))
    return framed(slab, flat, volume.affine, index, options, name=str(path), rule=rule, space=volume.space)


def framed(
    slab: NDArray[np.float32], mask: NDArray[Any], affine: NDArray[np.float64], index: int, options: SliceOptions, *,
    name: str, rule: str, space: int,
) -> Slice:  # fmt: skip
    """Return a slice with its neighbours as it goes into a model: padded or cropped, with the affine of what is left.

    Args:
        slab: (2 * context + 1, H, W), normalized.
        mask: (H, W), of the slice itself.
        affine: (4, 4) of the volume.
        index: Of the slice along the plane's axis.
    """
    axis, before = SLICE_AXIS[options.plane], [0, 0]
    if options.size is not None:
        before = [(want - have) // 2 for want, have in zip(options.size, mask.shape, strict=True)]
        slab = np.stack([_fitted(plane, options.size) for plane in slab])
        mask = _fitted(mask, options.size)
    tensor = torch.from_numpy(np.ascontiguousarray(slab, dtype=np.float32))[None]
    return Slice(
        tensor=tensor,
        name=name,
        mask_rule=rule,
        affine=_plane_affine(affine, axis, index, before),
        anatomy=tensor[0, options.context].clone(),
        mask=torch.from_numpy(mask.copy()),
        plane=options.plane,
        index=index,
        space=space,
    )


def normalized_volume(path: str | Path, options: SliceOptions) -> tuple[Volume, NDArray[np.bool_], str]:
    """Return a whole image as slices are taken from it (resampled, scaled), its mask, and the rule of the mask."""
    volume, mask, rule = _masked_volume(existing(path), options)
    if not volume.data.any():
        raise InputError(f"The image {path} is empty: all of its voxels are 0.")
    data = _normalized(volume.data, volume, options.intensity)
    return Volume(data, volume.affine, str(path), volume.space), mask, rule


def _masked_volume(path: Path, options: SliceOptions) -> tuple[Volume, NDArray[np.bool_], str]:
    """Return the volume and its mask, both resampled where the options say so, and the rule of the mask."""
    volume = read_volume(path)
    mask, rule = _mask(volume, options)
    if options.voxel_size is not None:
        whole = Volume(mask.astype(np.float32), volume.affine, volume.name)
        mask = resample(whole, options.voxel_size, order=0).data > 0.5
        volume = resample(volume, options.voxel_size)
    return volume, mask, rule


def _plane_affine(affine: NDArray[np.float64], axis: int, index: int, before: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of slice `index` across `axis` after `before` voxels were padded (negative: cropped) first."""
    corner = np.zeros(3)
    corner[axis] = index
    corner[[a for a in range(3) if a != axis]] = [-b for b in before]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ corner
    return moved


def _mask(volume: Volume, options: SliceOptions) -> tuple[NDArray[np.bool_], str]:
    if options.mask is None:
        return foreground(volume.data)
    mask = read_volume(options.mask)
    if mask.data.shape != volume.data.shape:
        raise InputError(
            f"Expected a mask of the image's shape {volume.data.shape} in RAS order, "
            f"got {options.mask} of shape {mask.data.shape}."
        )
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [
        *volume.data.shape,
        1,
    ]
    apart = float(np.abs(corners @ (mask.affine - volume.affine).T).max())
    if apart > 0.1 * volume.voxel_size.min():
        raise InputError(f"The mask {options.mask} lies {apart:.3g} mm away from the image: their affines differ.")
    if not mask.data.any():
        raise InputError(f"The mask {options.mask} is empty: all of its voxels are 0.")
    return mask.data > 0, f"voxels above 0 in {Path(options.mask).name}"


def _index(volume: Volume, axis: int, options: SliceOptions) -> int:
    size = volume.data.shape[axis]
    if options.index is None:
        others = tuple(a for a in range(3) if a != axis)
        return int(np.count_nonzero(volume.data, axis=others).argmax())
    if not -size <= options.index < size:
        raise InputError(
            f"Expected a slice of 0 to {size - 1}, got {options.index}: "
            f"{volume.name} has {size} {options.plane} slices."
        )
    return options.index % size


def _normalized(slab: NDArray[np.float32], volume: Volume, intensity: str) -> NDArray[np.float32]:
    """Return the slices with the intensities scaled by what the whole volume holds."""
    if intensity == "none":
        return slab
    if intensity == "minmax":
        low, high = float(volume.data.min()), float(volume.data.max())
        if low == high:
            raise InputError(f"The image {volume.name} is constant ({low:g}): minmax cannot scale it.")
        return np.asarray((slab - np.float32(low)) / np.float32(high - low), dtype=np.float32)
    values = volume.data[volume.data != 0]
    top = float(np.quantile(values, QUANTILE)) if values.size else 0.0
    if top <= 0:
        raise InputError(
            f"Expected positive intensities, got {volume.name} whose 99.9 % quantile of the non-zero voxels is {top:g}."
        )
    return np.clip(slab / np.float32(top), 0.0, 1.0)


def _fitted(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return the plane (H, W) padded with 0 or cropped to `size` around its centre; an odd voxel is far."""
    for axis, want in enumerate(size):
        have = plane.shape[axis]
        before = (want - have) // 2
        if want < have:
            plane = plane.take(np.arange(-before, -before + want), axis=axis)
        else:
            widths = [(0, 0)] * plane.ndim
            widths[axis] = (before, want - have - before)
            plane = np.pad(plane, widths)
    return plane
