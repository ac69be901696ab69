"""The MNIST digits (LeCun and Cortes, 1998): the four original files, and the split that is used here."""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analyses.models.mnist import MEAN, STD
from analyses.paths import DATA
from mcaprobe.errors import InputError

FOLDER = DATA / "mnist"
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
HELD_OUT = 5000  # the last training images, on which the best step of a training is chosen


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 28, 28) uint8 and their classes (N,) int64."""

    images: Tensor
    classes: Tensor

    def inputs(self, indices: Tensor) -> Tensor:
        """Return images as the network wants them, (n, 1, 28, 28) float32, normalised."""
        return (self.images[indices].float() / 255 - MEAN) / STD


def read_idx(path: Path) -> Tensor:
    """Return the array of an IDX file (gzip, unsigned bytes).

    Raises:
        InputError: no such file, or another one.
    """
    if not path.is_file():
        raise InputError(f"Expected a file of MNIST at {path}, found no file.")
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        data = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise InputError(f"Expected an IDX file, compressed by gzip, at {path}, could not read it.") from error
    if zero != 0 or kind != 8:
        raise InputError(f"Expected an IDX file of unsigned bytes at {path}, got type {kind}.")
    return torch.from_numpy(data.copy())


def load_digits(part: str, folder: Path = FOLDER) -> Digits:
    """Return the digits of a part: `train` (60,000) or `test` (10,000)."""
    images, classes = (read_idx(folder / name) for name in FILES[part])
    if images.ndim != 3 or len(images) != len(classes):
        raise InputError(f"Expected as many images as classes in {folder}, got {len(images)} and {len(classes)}.")
    return Digits(images[:, None], classes.long())
