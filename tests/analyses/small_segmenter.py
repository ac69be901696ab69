"""A network of two poolings and two unpoolings for slices of an image, and such an image: a head in an empty field."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import nn

OPTIONS = {"plane": "axial", "context": 1, "size": (32, 32), "intensity": "minmax"}


class Segmenter(nn.Module):
    """Three classes; poolings and unpoolings as modules."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool1, self.pool2 = nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d(2, return_indices=True)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.unpool2, self.unpool1 = nn.MaxUnpool2d(2), nn.MaxUnpool2d(2)
        self.conv3, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        a, i = self.pool1(self.norm1(self.conv1(x)))
        b, j = self.pool2(self.norm2(self.conv2(a)))
        return self.head(self.unpool1(self.conv3(self.unpool2(self.middle(b), j)), i))


def build():
    """Return the network with weights of its own seed, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = Segmenter()
        for norm in (network.norm1, network.norm2):
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    network.input_options = OPTIONS
    return network.eval()


def build_regression():
    """Return a network of one output channel: it chooses no class."""
    network = build()
    network.head = nn.Conv2d(4, 1, 3, padding=1)
    return network.eval()


def write_head(path: Path, seed: int = 0) -> Path:
    """Write an image of 32 x 32 x 6 voxels, of which the inner ones hold random numbers."""
    data = np.zeros((32, 32, 6), np.float32)
    data[10:24, 9:23, 1:5] = np.random.default_rng(seed).uniform(10, 100, (14, 14, 4))
    nib.Nifti1Image(data, np.diag([1.0, 1.0, 1.0, 1.0])).to_filename(path)
    return path
