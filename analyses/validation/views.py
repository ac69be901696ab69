"""What does a network see? Slices of a subject, prepared as it was trained, with the mask of the brain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from analyses.brains import Brain, even, load_brain
from analyses.preprocessing.conform import conform
from analyses.preprocessing.planes import CONTEXT, filled, slices_of, thick_slices
from analyses.structures import IGNORED
from mcaprobe.errors import InputError
from mcaprobe.images import SLICE_AXIS, Slice, SliceOptions
from mcaprobe.loading import Input, load_input, slice_options
from mcaprobe.models import tensor_hash
from mcaprobe.volumes import TEMPLATE, existing, read_volume, resample

LABELLED = re.compile(r"malc:(\d+)")
RULE = "voxels above 0 of the conformed image, holes filled slice by slice"


@dataclass(frozen=True)
class View:
    """One slice of one subject.

    Attributes:
        subject: Its name; nothing of the path of its file.
        index: Of the slice, in the image as the network gets it.
        input: Tensor (1, C, H, W) and picture, with the mask of the brain.
        target: Manual classes (H, W), uint8, `structures.IGNORED` where they count in no way; None where none are.
    """

    subject: str
    index: int
    input: Input
    target: Tensor | None = None

    @property
    def brain(self) -> Tensor:
        """The mask of the brain, bool (H, W)."""
        return self.picture.mask  # type: ignore[return-value]

    @property
    def picture(self) -> Slice:
        """Anatomy and mask."""
        assert self.input.picture is not None
        return self.input.picture


def views(network: nn.Module, source: str, count: int, plane: str = "axial") -> Iterator[View]:
    """Yield `count` slices of a subject, evenly spaced over those that hold a voxel of it.

    A network with `input_options` gets what they say of the image; any other a conformed volume's slices with three
    neighbours on each side, as those trained here were trained.

    Args:
        source: An image file, `mni152`, or `malc:NUMBER`, a labelled brain.
    Raises:
        InputError: no such image or subject, or fewer slices with brain than are asked for.
    """
    options = getattr(network, "input_options", None)
    if options is not None:
        yield from _by_options(network, source, count, slice_options(options, {}))
        return
    brain, labelled = _conformed(source)
    seen = torch.nonzero(filled(brain.image, plane)).flatten().tolist()
    for index in spread(seen, count, source):
        x = thick_slices(brain.image, plane, [index])
        own = slices_of(brain.image, plane)[index]
        mask = torch.from_numpy(ndimage.binary_fill_holes(own.numpy() > 0))
        picture = Slice(x, name_of(source), RULE, np.eye(4), x[0, CONTEXT].clone(), mask, plane, index)  # type: ignore[arg-type]
        target = slices_of(brain.classes, plane)[index].clone() if labelled else None
        yield View(name_of(source), index, Input(x, name_of(source), tensor_hash(x), picture=picture), target)


def _by_options(network: nn.Module, source: str, count: int, options: SliceOptions) -> Iterator[View]:
    path = file_of(source)
    data = read_volume(path) if options.voxel_size is None else resample(read_volume(path), options.voxel_size)
    axis = SLICE_AXIS[options.plane]
    full = np.flatnonzero(data.data.any(axis=tuple(a for a in range(3) if a != axis)))
    for index in spread(full.tolist(), count, source):
        found = load_input(path, network, {"index": index})
        if found.picture is None or found.picture.mask is None:
            raise InputError(f"Expected an image with a brain to look at, got {source}.")
        yield View(name_of(source), index, replace(found, name=name_of(source)))


@cache
def _conformed(source: str) -> tuple[Brain, bool]:
    found = LABELLED.fullmatch(source)
    if found:
        return load_brain(found[1]), True
    image = conform(even(nib.Nifti1Image.from_image(_image(source))))
    data = torch.from_numpy(np.asarray(image.dataobj))
    return Brain(name_of(source), data, torch.full_like(data, IGNORED), image.affine), False


def _image(source: str) -> Any:
    image: Any = nib.load(existing(file_of(source)))  # type: ignore[attr-defined]
    data: NDArray[Any] = np.asanyarray(image.dataobj)
    return nib.Nifti1Image(data, image.affine)


def file_of(source: str) -> str | Path:
    """Return the file of a subject, or a name that mcaprobe knows."""
    found = LABELLED.fullmatch(source)
    if not found:
        return source
    from analyses.brains import FOLDER

    return FOLDER / f"{found[1]}_SS.nii.gz"


def name_of(source: str) -> str:
    """Return the subject's name: `malc 1013`, `mni152`, or that of the file without folder and ending."""
    found = LABELLED.fullmatch(source)
    return f"malc {found[1]}" if found else source if source == TEMPLATE else Path(source).name.split(".")[0]


def spread(indices: Sequence[int], count: int, source: str) -> list[int]:
    """Return `count` of the indices, evenly spaced, none of them at an end."""
    if not 1 <= count <= len(indices):
        raise InputError(f"Expected from 1 to {len(indices)} slices of {source}, which hold a voxel, got {count}.")
    return [indices[(2 * k + 1) * len(indices) // (2 * count)] for k in range(count)]
