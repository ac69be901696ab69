"""Runs of Voting on a head in small: networks whose labels rounding decides."""

from pathlib import Path

import mcaprobe
from mcaprobe.result import Result
from tests.mcaprobe import small_models as models
from tests.mcaprobe.small_head import write_head

LABELS = ":output.labels"


def head_file(folder: Path) -> Path:
    """A head in small, of voxels that differ, in air of zeros."""
    return write_head(folder / "sub-7_T1w.nii.gz")


def vote(folder: Path, out: Path | None = None, observer=None, **options) -> Result:
    """Run Voting on the head, all kept."""
    options = {"samples": 6, "block": 2, "keep_moments": "*", "keep_samples": "*", **options}
    return mcaprobe.run(models.build_voting(), folder / "sub-7_T1w.nii.gz", out=out, observer=observer,
                        input_options={"size": (24, 24)}, **options)  # fmt: skip
