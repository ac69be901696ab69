"""Natural images, one for each of some classes of ImageNet, as SqueezeNet wants them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from analyses.models.squeezenet import BGR_MEANS, SIZE
from analyses.paths import DATA
from mcaprobe.errors import InputError

FOLDER = DATA / "imagenet_samples"
STEP = 5  # classes between one image and the next
SHORTER = 256  # pixels of the shorter side before the crop


@dataclass(frozen=True)
class Images:
    """Images (N, 3, 227, 227) as the network wants them, and their classes (N,) int64."""

    images: Tensor
    classes: Tensor

    def inputs(self, indices: Tensor) -> Tensor:
        """Return images as the network wants them."""
        return self.images[indices]


def load_images(folder: Path = FOLDER) -> Images:
    """Return all images of a folder, in the order of their names, which is that of their classes: every fifth of 1000.

    Raises:
        InputError: no folder, or no JPEG in it.
    """
    files = sorted(folder.glob("*.JPEG")) if folder.is_dir() else []
    if not files:
        raise InputError(f"Expected images .JPEG in {folder}, found none.")
    return Images(torch.stack([prepared(Image.open(file)) for file in files]), STEP * torch.arange(len(files)))


def prepared(image: Image.Image) -> Tensor:
    """Return an image (3, 227, 227), BGR less the means: its shorter side made 256 pixels, the middle cut out."""
    rgb = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32)).permute(2, 0, 1)
    scale = SHORTER / min(rgb.shape[1:])
    size = [max(SIZE, round(scale * n)) for n in rgb.shape[1:]]
    x = F.interpolate(rgb[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    top, left = ((n - SIZE) // 2 for n in size)
    return x[[2, 1, 0], top : top + SIZE, left : left + SIZE] - torch.tensor(BGR_MEANS)[:, None, None]
