"""BIDS datasets in small: heads of noise, made by hand, with a segmentation beside them; and what validates them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

NAMES = ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w", "sub-02/ses-b/anat/sub-02_ses-b_T1w",
         "sub-03/anat/sub-03_T1w")  # fmt: skip
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SEGMENTATION = "derivatives/halves"


def head(seed: int) -> np.ndarray:
    """Return a box of noise in a volume of zeros."""
    volume = np.zeros((20, 24, 18), np.float32)
    volume[4:16, 5:19, 3:15] = np.random.default_rng(seed).uniform(50, 100, (12, 14, 12))
    return volume


def save(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def describe(folder: Path, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"Name": "Heads in small", "BIDSVersion": "1.10.0", "Authors": ["A. Uthor", "W. Riter"], "License": "CC0"}
    (folder / "dataset_description.json").write_text(json.dumps({**about, **more}))
    (folder / "README.md").write_text("Heads of noise for the tests of a program that reads such datasets. " * 4)


def make_set(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Write a raw dataset and a derivative set with labels 1 (left) and 2 (right) for each of its images."""
    describe(folder)
    halves = folder / SEGMENTATION
    describe(halves, DatasetType="derivative", GeneratedBy=[{"Name": "hand"}])
    (halves / "dseg.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    for number, name in enumerate(names):
        volume = head(number)
        save(folder / f"{name}.nii.gz", volume)
        labels = np.zeros(volume.shape, np.uint8)
        labels[4:10, 5:19, 3:15], labels[10:16, 5:19, 3:15] = 1, 2
        save(halves / f"{name.removesuffix('_T1w')}_dseg.nii.gz", labels)
    return folder


def tool(name: str) -> str:
    """Return the path of a program beside this Python or on PATH, or skip the test that asked for it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name} is not installed")
    return found


def complaints(dataset: Path) -> list[str]:
    """Return the errors and warnings of the BIDS validator (the one of the schema, which knows derivatives).

    Less one: that the authors are not listed, since a program does not know who calls it.
    """
    program = tool("bids-validator-deno")
    done = subprocess.run([program, str(dataset), "--format", "json"], capture_output=True, text=True, timeout=120)
    if not done.stdout.startswith("{"):
        pytest.skip(f"the program bids-validator-deno does not run here: {done.stderr.strip()[-200:]}")
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [
        f"{i['severity']} {i['code']} {i.get('subCode', '')} {i.get('location', '')}"
        for i in issues if i["code"] != "TOO_FEW_AUTHORS"
    ]  # fmt: skip


def legacy_errors(dataset: Path) -> list[str]:
    """Return the errors of the legacy validator, which reads raw data only and does not look into derivatives."""
    program = tool("bids-validator")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    if not version.startswith("1."):
        pytest.skip(f"the program bids-validator is no legacy validator but {version}")
    done = subprocess.run([program, str(dataset), "--json"], capture_output=True, text=True, timeout=120)
    return [f"{issue['key']}" for issue in json.loads(done.stdout)["issues"]["errors"]]
