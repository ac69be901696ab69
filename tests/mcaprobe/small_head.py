"""An image of a head in small, for campaigns that take a moment."""

from pathlib import Path

import nibabel as nib
import numpy as np


def write_head(path: Path) -> Path:
    """Write voxels that differ, in air of zeros; return the path."""
    head = np.zeros((20, 24, 18), np.float32)
    head[4:16, 5:19, 3:15] = np.random.default_rng(1).uniform(50, 100, (12, 14, 12))
    nib.save(nib.Nifti1Image(head, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return path
