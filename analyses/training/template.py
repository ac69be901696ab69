"""What does the network learn from? One template: the MNI152 T1 and its tissue maps that nilearn ships."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mcaprobe.errors import InputError

CLASSES = ("background", "csf", "grey", "white")
SOURCE = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, slots=True)
class Template:
    """The template in its own voxels (1 mm, RAS+, shape (197, 233, 189)), float32 unless said.

    Attributes:
        fields: (5, X, Y, Z): T1 / 255; csf, grey and white fractions; signed distance to the brain's surface in
            millimetres (negative inside). One tensor, because all are sampled at the same points.
        labels: (X, Y, Z) uint8, indices into `CLASSES`.
        means: mean T1 of csf, grey, white, fitted to the fractions by least squares.
        centre: the brain's centre of mass in voxels.
    """

    fields: Tensor
    labels: Tensor
    means: tuple[float, float, float]
    centre: tuple[float, float, float]


def raw_map(name: str) -> np.ndarray:
    """Return one of nilearn's files (t1, gm, wm) as stored, uint8, (197, 233, 189).

    The loaders of nilearn rescale (the T1 to a maximum of 1); the stored values are taken from the package itself.

    Raises:
        InputError: nilearn is absent, or no longer ships the file as it was.
    """
    path = SOURCE.format(name)
    try:
        file = files("nilearn").joinpath(path.removeprefix("nilearn/"))
        data = np.asarray(nib.load(str(file)).dataobj)  # type: ignore[attr-defined]
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(f"Expected nilearn's file {path} (pip install nilearn), got: {error}.") from error
    if data.dtype != np.uint8 or data.shape != (197, 233, 189):
        raise InputError(f"Expected {path} as uint8 (197, 233, 189), got {data.dtype} {data.shape}.")
    return data


@cache
def load_template() -> Template:
    """Return the template with its classes: the largest of grey, white and, where the T1 is not 0, the rest (csf)."""
    raw = [raw_map(name) for name in ("t1", "gm", "wm")]
    t1, grey, white = (data.astype(np.float32) / 255 for data in raw)
    fractions = np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
    brain = ndimage.binary_fill_holes(t1 > 0)
    _, g, w = (data.astype(np.int16) for data in raw)
    largest = np.stack([np.clip(255 - g - w, 0, 255), g, w]).argmax(0)  # integers: a tie is a tie, and the first wins
    labels = np.where(brain, largest + 1, 0).astype(np.uint8)
    distance = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
    design = fractions[:, brain].T.astype(np.float64)
    means, *_ = np.linalg.lstsq(design, t1[brain].astype(np.float64), rcond=None)
    fields = torch.from_numpy(np.concatenate([t1[None], fractions, distance[None].astype(np.float32)]))
    centre = ndimage.center_of_mass(brain)
    return Template(
        fields=fields,
        labels=torch.from_numpy(labels),
        means=(float(means[0]), float(means[1]), float(means[2])),
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
    )
