"""Which structures do the networks that are trained here tell apart? 16, with both hemispheres as one.

Numbers are those of the manual labels (MICCAI 2012 multi-atlas challenge, Neuromorphometrics). What a reader would
have to guess is ignored in training and in scores: vessels, lesions, the optic chiasm, basal forebrain and accumbens,
the fifth ventricle and CSF, which carry few voxels or are drawn in some brains only.
"""

import numpy as np
from numpy.typing import NDArray

from mcaprobe.errors import InputError

IGNORED = 255
STRUCTURES: dict[str, tuple[int, ...]] = {
    "background": (0,),
    "cerebral white matter": (44, 45),
    "cerebral cortex": tuple(range(100, 208)),
    "lateral ventricle": (49, 50, 51, 52),
    "cerebellar white matter": (40, 41),
    "cerebellar cortex": (38, 39, 71, 72, 73),
    "thalamus": (59, 60),
    "caudate": (36, 37),
    "putamen": (57, 58),
    "pallidum": (55, 56),
    "third ventricle": (4,),
    "fourth ventricle": (11,),
    "brain stem": (35,),
    "hippocampus": (47, 48),
    "amygdala": (31, 32),
    "ventral diencephalon": (61, 62),
}
CLASSES = tuple(STRUCTURES)
LARGEST = 207


def lookup() -> NDArray[np.uint8]:
    """Return the class of each manual label 0 to 207, uint8; `IGNORED` where it is none of the structures."""
    table = np.full(LARGEST + 1, IGNORED, np.uint8)
    for i, labels in enumerate(STRUCTURES.values()):
        table[list(labels)] = i
    return table


def classes_of(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the classes (uint8) of manual labels of any shape; InputError where a label is none of the challenge's."""
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST):
        raise InputError(f"Expected labels in 0..{LARGEST}, got {labels.min()}..{labels.max()}.")
    found: NDArray[np.uint8] = lookup()[labels]
    return found
