"""Fifteen labelled brains: conformed, with the classes of their structures, each in its part of the study.

MICCAI 2012 multi-atlas challenge (OASIS images, Neuromorphometrics labels, CC BY-NC 3.0), skull-stripped, 1 mm; not
part of this repository. The split was fixed before any network was trained: by number, the last five for the tests.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analyses.paths import DATA
from analyses.preprocessing.conform import conform, conform_labels
from analyses.structures import classes_of
from mcaprobe.errors import InputError

FOLDER = DATA / "malc"
TRAIN = ("1000", "1001", "1002", "1006", "1007", "1008", "1009", "1010", "1011")
VALIDATION = ("1012",)
LEARNT = f"MICCAI 2012 brains {', '.join(TRAIN)}; validation {', '.join(VALIDATION)}"
TEST = ("1013", "1014", "1015", "1017", "1036")


@dataclass(frozen=True)
class Brain:
    """One subject.

    Attributes:
        image: Conformed, (256, 256, 256) uint8, LIA.
        classes: Of the structures, the same grid, uint8 (`structures.IGNORED` where they count in no way).
        affine: From voxels of both to millimetres.
    """

    name: str
    image: Tensor
    classes: Tensor
    affine: NDArray[np.float64]


def load_brain(name: str, folder: Path = FOLDER) -> Brain:
    """Return a subject of the challenge.

    The publishers cropped each image to a box around its brain; where the box has an odd side, a row of zeros is
    added, so that the 256 voxels have its middle without an interpolation, and each label stays where it was drawn.

    Raises:
        InputError: a file is missing, or labels and image differ in shape.
    """
    files = folder / f"{name}_SS.nii.gz", folder / f"{name}_glm.nii.gz"
    for file in files:
        if not file.is_file():
            raise InputError(f"Expected the labelled brain {name} at {file}, found no file.")
    image, labels = (even(nib.Nifti1Image.from_filename(file)) for file in files)
    if image.shape != labels.shape:
        raise InputError(f"Expected labels of the image's shape {image.shape} in {files[1]}, got {labels.shape}.")
    whole = conform(image)
    classes = classes_of(np.asarray(conform_labels(labels).dataobj))
    return Brain(name, torch.from_numpy(np.asarray(whole.dataobj)), torch.from_numpy(classes), whole.affine)


def load_learnt() -> dict[str, Brain]:
    """Return the subjects of training and validation, by name."""
    return {name: load_brain(name) for name in (*TRAIN, *VALIDATION)}


def even(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return an image with one row of zeros more at the end of each axis whose number of voxels is odd."""
    data = np.asanyarray(image.dataobj)
    return nib.Nifti1Image(np.pad(data, [(0, n % 2) for n in data.shape]), image.affine)
