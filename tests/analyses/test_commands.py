"""Do the commands do what they say, and say in one sentence what they cannot do?"""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from analyses.__main__ import main
from analyses.labels import TABLE, regions, tissue_table, tissues
from analyses.models.checkpoint import load_network
from mcaprobe.errors import InputError
from mcaprobe.volumes import TEMPLATE, read_volume
from tests.shared_data import shared

TABLE_TEXT = """Label Number,Label Name,Class
1,Unlabeled,None
2,aals,
4,3rd Ventricle,CSF
35,Brain Stem,WM
47,Right Hippocampus,GM
44,Right Cerebral White Matter,WM
63,Right vessel,None
"""


def write_brain(folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    """Write an image and its labels as the challenge does: LAS, 16 bit."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    for suffix, data in (("SS", image), ("glm", labels)):
        nib.Nifti1Image(data.astype(np.int16), affine).to_filename(folder / f"{name}_{suffix}.nii.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two brains of four slices cut from the template, labelled by its intensity."""
    (tmp_path / TABLE).write_text(TABLE_TEXT)
    t1 = read_volume(TEMPLATE).data[::-1, :, 70:74]
    labels = np.select([t1 == 0, t1 < 120, t1 < 190], [0, 4, 47], 44)
    for name in ("b1", "b2"):
        write_brain(tmp_path, name, t1 * 5, labels)
    return tmp_path


def test_evaluate_writes_rows_a_manifest_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "results" / "dice.csv"
    assert main(["evaluate", "tissue", "--data", str(folder), "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["subject", "region", "class", "dice", "voxels"]
    assert len(rows) == 2 * 3 * 4
    white = [float(row["dice"]) for row in rows if row["class"] == "white" and row["region"] == "whole"]
    assert min(white) > 0.85
    manifest = json.loads(out.with_suffix(".json").read_text())
    assert {
        "versions",
        "machine",
        "commit",
        "threads",
        "seed",
        "checkpoint",
        "metric",
        "summary",
    } <= manifest.keys()
    assert len(manifest["checkpoint"]["sha256"]) == 64
    assert "95 % bootstrap interval" in capsys.readouterr().out


def test_train_writes_a_checkpoint_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.safetensors"
    options = ["--batch", "1", "--filters", "4", "--interpolation-filters", "4", "--out", str(out)]
    assert main(["train", "tissue", "--steps", "2", *options]) == 0
    assert load_network(out)[1]["steps done"] == 2
    assert main(["train", "tissue", "--steps", "2", *options, "--resume"]) == 0
    assert "Resuming at step 2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "tissue", "--steps", "0"], "Expected --steps of at least 1, got 0."),
        (["train", "tissue", "--seed", "-1"], "Expected --seed of at least 0, got -1."),
        (["train", "tissue", "--learning-rate", "nan"], "Expected a positive --learning-rate, got nan."),
        (["train", "tissue", "--out", "x.pt"], "Expected --out to end in .safetensors, got x.pt."),
        (
            ["evaluate", "tissue", "--data", "no/such"],
            "Expected a folder of labelled brains at no/such, found none.",
        ),
        (["evaluate", "tissue", "--threads", "0"], "Expected --threads of at least 1, got 0."),
    ],
    ids=["steps", "seed", "rate", "out", "data", "threads"],
)
def test_bad_input_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_an_unknown_subject_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "tissue", "--data", str(folder), "--subjects", "b3"]) == 2
    assert capsys.readouterr().err == "error: Expected subjects among b1, b2, got b3.\n"


def test_a_folder_without_brains_or_table_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / TABLE).unlink()
    assert main(["evaluate", "tissue", "--data", str(folder)]) == 2
    assert "Expected the label table at" in capsys.readouterr().err


def test_the_table_decides_and_what_it_leaves_open_is_ignored(folder: Path) -> None:
    table = tissue_table(folder / TABLE)
    assert tissues(np.array([0, 4, 35, 47, 44, 63, 1, 2, 50]), table).tolist() == [
        0,
        1,
        3,
        2,
        3,
        255,
        255,
        255,
        255,
    ]
    with pytest.raises(InputError, match=r"Expected labels in 0..63, got 0..64"):
        tissues(np.array([0, 64]), table)


def test_regions_leave_out_what_they_say(folder: Path) -> None:
    labels = np.array([0, 0, 4, 35, 47, 63])
    mask = np.array([False, True, True, True, True, True])
    found = regions(labels, mask, tissue_table(folder / TABLE))
    assert found["whole"].tolist() == [True, True, True, True, True, False]
    assert found["labelled"].tolist() == [True, False, True, True, True, False]
    assert found["supratentorial"].tolist() == [True, False, True, False, True, False]


def test_the_challenges_table_knows_every_label_of_a_brain() -> None:
    table = tissue_table(shared(f"malc/{TABLE}"))
    labels = read_volume(shared("malc/1000_glm.nii.gz")).data.astype(int)
    share_ignored = float((tissues(labels, table) == 255).mean())
    assert share_ignored < 1e-4
