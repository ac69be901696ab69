"""Runs of Voting on a head in small: networks whose labels rounding decides."""

from pathlib import Path

import nibabel as nib
import numpy as np

import mcaprobe
from mcaprobe.result import Result
from tests.mcaprobe import small_models as models

LABELS = ":output.labels"


def head_file(folder: Path) -> Path:
    """A head in small, of voxels that differ, in air of zeros."""
    head = np.zeros((20, 24, 18), np.float32)
    head[4:16, 5:19, 3:15] = np.random.default_rng(1).uniform(50, 100, (12, 14, 12))
    nib.save(nib.Nifti1Image(head, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "sub-7_T1w.nii.gz")
    return folder / "sub-7_T1w.nii.gz"


def vote(folder: Path, out: Path | None = None, observer=None, **options) -> Result:
    """Run Voting on the head, all kept."""
    options = {"samples": 6, "block": 2, "keep_moments": "*", "keep_samples": "*", **options}
    return mcaprobe.run(models.build_voting(), folder / "sub-7_T1w.nii.gz", out=out, observer=observer,
                        input_options={"size": (24, 24)}, **options)  # fmt: skip
