"""What does `mcaprobe bids` leave of a dataset, of one with a corrupt image, and of a killed call?"""

import csv
import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import mcaprobe
from mcaprobe.__main__ import main, parser
from tests.mcaprobe.bids_sets import NAMES, SEGMENTATION, complaints, head, legacy_errors, make_set, save
from tests.mcaprobe.small_models import HERE
from tests.shared_data import shared

pytest.importorskip("ancpbids", reason="the package ancpbids, of the extra bids, is not installed")

SMALL = f"{HERE}:build_small"
QUICK = ["--model", SMALL, "--samples", "4", "--block", "2", "--size", "24x24", "--threads", "1"]
FULL = [*QUICK, "--keep-moments", "conv*", "--mask-below", "20"]


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    """Return exit code, output and error stream of mcaprobe bids; no traceback may be in it."""
    capsys.readouterr()
    code = main(["bids", *map(str, arguments)])
    output, errors = capsys.readouterr()
    assert "Traceback" not in output + errors
    return code, output, errors


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes of each file and when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset and its derivatives with masks and regions, both levels."""
    dataset = make_set(tmp_path_factory.mktemp("bids") / "heads")
    out = dataset / "derivatives" / "mcaprobe"
    options = [*FULL, "--segmentation", str(dataset / SEGMENTATION)]
    assert main(["bids", str(dataset), str(out), "participant", *options, "--quiet"]) == 0
    assert main(["bids", str(dataset), str(out), "group", "--quiet"]) == 0
    return dataset, out


def test_every_image_has_a_table_maps_and_masks_where_bids_wants_them(made) -> None:
    _, out = made
    for name in NAMES:
        stem = out / name.removesuffix("_T1w")
        for what in ("sigbits.tsv", "sigbits.json", "label-conv1_sigbits.nii.gz", "label-conv1_sigbits.json",
                     "label-conv1_desc-unstable_mask.nii.gz", "label-conv1_desc-unstable_mask.json",
                     "label-conv2_desc-unstable_probseg.nii.gz"):  # fmt: skip
            assert Path(f"{stem}_{what}").is_file(), what
    assert not list(out.glob("*.nii.gz"))


def test_the_schema_validator_has_nothing_to_say_of_the_derivatives(made) -> None:
    _, out = made
    ignored = (out / ".bidsignore").read_text().split()
    assert ignored == ["/work", "/*.html", "*_sigbits.*"]  # masks are judged
    assert complaints(out) == []


def test_the_schema_validator_sees_a_mask_of_another_name(made, tmp_path) -> None:
    _, out = made
    for name in ("dataset_description.json", ".bidsignore", "README.md"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    mask = out / "sub-01" / "anat" / "sub-01_label-conv1_desc-unstable_mask.nii.gz"
    (tmp_path / "sub-01" / "anat" / "sub-01_unstable-conv1_mask.nii.gz").write_bytes(mask.read_bytes())
    assert any("sub-01_unstable-conv1_mask" in line for line in complaints(tmp_path))


def test_the_legacy_validator_accepts_the_dataset_with_its_derivatives(made) -> None:
    dataset, _ = made
    assert legacy_errors(dataset) == []


def test_the_description_names_the_program_and_the_source(made) -> None:
    dataset, out = made
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "mcaprobe"
    assert (out / about["SourceDatasets"][0]["URL"]).resolve() == dataset.resolve()
    assert (out / about["DatasetLinks"]["segmentation"]).resolve() == (dataset / SEGMENTATION).resolve()


def test_the_sources_of_a_side_car_are_files(made) -> None:
    _, out = made
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    for what in ("label-conv1_sigbits", "label-conv1_desc-unstable_mask", "sigbits"):
        about = json.loads((out / f"sub-02/ses-a/anat/sub-02_ses-a_run-1_{what}.json").read_text())
        assert len(about["Sources"]) == 2
        for uri in about["Sources"]:
            _, link, path = uri.split(":", 2)
            assert (out / links[link] / path).is_file()


def test_the_table_is_that_of_the_run(made) -> None:
    _, out = made
    found = rows(out / "sub-01/anat/sub-01_sigbits.tsv")
    run = mcaprobe.load(out / "work/sub-01_T1w")
    assert [(r["layer"], r["region"]) for r in found] == [(row.layer, row.region) for row in run.rows]
    for line, row in zip(found, run.rows, strict=True):
        assert line["bits_mean"] == ("n/a" if row.bits_mean is None else repr(row.bits_mean))
    assert {"left", "right", "brain"} <= {r["region"] for r in found}


def test_the_map_is_that_of_the_run_over_the_image(made) -> None:
    dataset, out = made
    stem = "sub-01/anat/sub-01"
    image, head_image = nib.load(out / f"{stem}_label-conv1_sigbits.nii.gz"), nib.load(dataset / f"{stem}_T1w.nii.gz")
    run = mcaprobe.load(out / "work/sub-01_T1w")
    bits, majority = run["conv1"].bits.numpy(), run["conv1"].majority.numpy()
    numbers = majority == 0
    assert image.shape == (24, 24, 1, 9)
    assert np.array_equal(np.asarray(image.dataobj)[:, :, 0, 0][numbers], bits[numbers])
    middle = image.affine @ [11.5, 11.5, 0, 1]
    assert np.allclose(middle[:2], (head_image.affine @ [9.5, 11.5, 0, 1])[:2])


def test_a_mask_marks_what_mcaprobe_mask_marks(made) -> None:
    _, out = made
    marked = nib.load(out / "sub-01/anat/sub-01_label-conv1_desc-unstable_mask.nii.gz")
    mask = mcaprobe.load_masks(out / "work/sub-01_T1w/masks")["conv1"]
    assert np.array_equal(np.asarray(marked.dataobj)[..., 0] > 0, mask.values[0].any(0).numpy())
    assert mask.values.any() and not mask.values.all()


def test_each_subject_has_one_report(made) -> None:
    _, out = made
    assert sorted(path.name for path in out.glob("sub-*.html")) == ["sub-01.html", "sub-02.html", "sub-03.html"]
    text = (out / "sub-02.html").read_text()
    assert "sub-02_ses-a_run-1_T1w" in text and "sub-02_ses-b_T1w" in text and "sub-01_T1w" not in text


def test_complete_images_are_not_repeated(made, capsys) -> None:
    dataset, out = made
    before = contents(out / "work/sub-01_T1w") | contents(out / "sub-01")
    code, output, _ = call(capsys, dataset, out, "participant", *FULL, "--segmentation", dataset / SEGMENTATION)
    assert code == 0 and output.startswith("Images done: 0; complete before: 4.")
    assert contents(out / "work/sub-01_T1w") | contents(out / "sub-01") == before


def test_other_settings_are_refused_with_the_first_difference(made, capsys) -> None:
    dataset, out = made
    arguments = [*FULL, "--segmentation", dataset / SEGMENTATION, "--seed", "5"]
    code, _, errors = call(capsys, dataset, out, "participant", *arguments)
    assert code == 2 and "their seed is 0, here it is 5" in errors
    code, _, errors = call(capsys, dataset, out, "participant", *arguments, "--overwrite", "--participant-label", "01")
    assert code == 2 and "their seed is 0, here it is 5" in errors  # the others would stay as they are


@pytest.fixture
def small(tmp_path) -> Path:
    return make_set(tmp_path / "heads", NAMES[:3])


def spoil(path: Path, how: str) -> None:
    """Make an image file unreadable."""
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "flipped":
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    elif how == "text":
        data = bytearray(b"no image")
    elif how == "empty":
        data = bytearray()
    elif how == "cut volume":
        data = bytearray(gzip.compress(gzip.decompress(bytes(data))[:2000]))
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["truncated", "flipped", "text", "empty", "cut volume"])
def test_a_corrupt_image_does_not_stop_the_others(small, tmp_path, capsys, how) -> None:
    out, broken = tmp_path / "out", small / f"{NAMES[1]}.nii.gz"
    good = broken.read_bytes()
    spoil(broken, how)
    code, output, errors = call(capsys, small, out, "participant", *QUICK)
    assert code == 3 and output.startswith("Images done: 2.")
    (line,) = (line for line in errors.splitlines() if line.startswith("  sub-02_ses-a_run-1_T1w: "))
    failure = json.loads((out / "work/sub-02_ses-a_run-1_T1w.failed.json").read_text())
    assert failure["traceback"] is None  # expected, and said in a sentence
    assert str(broken) in line and (out / "sub-02/ses-b/anat/sub-02_ses-b_sigbits.tsv").is_file()
    assert not (out / "sub-02/ses-a").exists() and "sub-02_ses-b_T1w" in (out / "sub-02.html").read_text()

    retry = shlex.split(errors.splitlines()[-1])
    assert retry[:2] == ["mcaprobe", "bids"] and json.loads((out / "work/failures.json").read_text())["retry"]
    before = contents(out / "sub-02/ses-b") | contents(out / "work/sub-01_T1w")
    broken.write_bytes(good)
    code, output, errors = call(capsys, *retry[2:])
    assert code == 0 and output.startswith("Images done: 1.") and "failed" not in errors
    assert (out / "sub-02/ses-a/anat/sub-02_ses-a_run-1_sigbits.tsv").is_file()
    assert contents(out / "sub-02/ses-b") | contents(out / "work/sub-01_T1w") == before
    assert "sub-02_ses-a_run-1_T1w" in (out / "sub-02.html").read_text()
    assert json.loads((out / "work/failures.json").read_text())["failed"] == []


def test_the_retry_command_has_all_other_options(small, tmp_path, capsys) -> None:
    spoil(small / f"{NAMES[0]}.nii.gz", "text")
    arguments = ["bids", small, tmp_path / "out", "participant", *FULL, "--slice", 8, 9, "--mode", "nearness",
                 "--intensity", "minmax", "--participant-label", "01", "02", "--method", "general"]  # fmt: skip
    arguments = [str(a) for a in arguments]
    code, _, errors = call(capsys, *arguments[1:])
    assert code == 3
    asked, again = (vars(parser().parse_args(line)) for line in (arguments, shlex.split(errors.splitlines()[-1])[1:]))
    assert again["images"] == ["sub-01_T1w"] and again["participant_label"] == []
    for name in asked.keys() - {"images", "participant_label", "parser", "command"}:
        assert asked[name] == again[name], name


def test_the_list_of_failures_has_those_of_earlier_calls(small, tmp_path, capsys) -> None:
    for name in NAMES[:2]:
        spoil(small / f"{name}.nii.gz", "text")
    for subject in ("01", "02"):
        code, *_ = call(capsys, small, tmp_path / "out", "participant", *QUICK, "--participant-label", subject)
        assert code == 3
    about = json.loads((tmp_path / "out/work/failures.json").read_text())
    names = [entry["image"] for entry in about["failed"]]
    assert names == ["sub-01_T1w", "sub-02_ses-a_run-1_T1w"]
    assert parser().parse_args(shlex.split(about["retry"])[1:]).images == names


def test_a_model_that_raises_fails_each_image_in_one_sentence(small, tmp_path, capsys) -> None:
    code, _, errors = call(capsys, small, tmp_path / "out", "participant", *QUICK, "--model", f"{HERE}:build_raising",
                           "--participant-label", "01")  # fmt: skip
    assert code == 3 and "1 image failed:" in errors
    assert list((tmp_path / "out/work").glob("*.failed.json"))
    assert not (tmp_path / "out" / "sub-01.html").exists()


def test_slices_are_chunks_of_their_number(small, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    code, *_ = call(capsys, small, out, "participant", *FULL, "--slice", 8, 9, "--participant-label", "sub-01",
                    "--maps", "conv1")  # fmt: skip
    assert code == 0
    names = {path.name for path in (out / "sub-01/anat").glob("*.nii.gz")}
    assert {f"sub-01_chunk-{i}_label-conv1_sigbits.nii.gz" for i in (8, 9)} <= names
    assert not any("label-norm" in name for name in names)
    assert {r["slice"] for r in rows(out / "sub-01/anat/sub-01_sigbits.tsv")} == {"8", "9"}
    places = [nib.load(out / f"sub-01/anat/sub-01_chunk-{i}_label-conv1_sigbits.nii.gz").affine[2, 3] for i in (8, 9)]
    assert places[1] - places[0] == 2.0
    assert complaints(out) == []


def killed_then_resumed(dataset: Path, out: Path, ready: Path) -> None:
    """Kill mcaprobe bids as soon as `ready` is there."""
    command = [sys.executable, "-m", "mcaprobe", "bids", str(dataset), str(out), "participant", *QUICK, "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, "the call ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert ready.exists()


def test_a_killed_call_goes_on_where_it_was(small, tmp_path, capsys) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call(capsys, small, whole, "participant", *QUICK)[0] == 0
    killed_then_resumed(small, out, out / "work" / "sub-01_T1w.done.json")
    before = contents(out / "work/sub-01_T1w") | contents(out / "sub-01")
    code, output, _ = call(capsys, small, out, "participant", *QUICK)
    assert code == 0 and "complete before: 1." in output
    assert contents(out / "work/sub-01_T1w") | contents(out / "sub-01") == before
    for name in NAMES[:3]:
        table = f"{name.removesuffix('_T1w')}_sigbits.tsv"
        assert (out / table).read_bytes() == (whole / table).read_bytes()
    assert not list(out.rglob(".writing-*"))


def test_a_changed_image_is_computed_again(small, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert call(capsys, small, out, "participant", *QUICK, "--participant-label", "01")[0] == 0
    save(small / f"{NAMES[0]}.nii.gz", head(9))
    code, _, errors = call(capsys, small, out, "participant", *QUICK, "--participant-label", "01")
    assert code == 3 and "holds another run: its input sha256" in errors  # never mixed in silence
    before = (out / "sub-01/anat/sub-01_sigbits.tsv").read_bytes()
    assert call(capsys, small, out, "participant", *QUICK, "--participant-label", "01", "--overwrite")[0] == 0
    assert (out / "sub-01/anat/sub-01_sigbits.tsv").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--participant-label", "04"], "No participant 04 has a T1w image: the nearest are"),
        (["--session-label", "c"], "No session c has a T1w image: there are a, b."),
        (["--images", "sub-01_T2w"], "No T1w image that is left is called sub-01_T2w: the nearest are sub-01_T1w"),
        (["--samples", "1"], "Expected at least 2 samples"),
        (["--mode", "up"], "Expected a mode among"),
        (["--model", f"{HERE}:build_smal"], "has no build_smal: the nearest are build_small"),
        (["--mask-below", "1"], "--mask-below needs --keep-moments"),
        (["--segmentation", "nowhere"], "There is no folder"),
        (["--slice", "3", "3"], "Expected different slices of 0 or more, got 3 3."),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_nothing_is_made(small, tmp_path, capsys, arguments, sentence) -> None:
    code, _, errors = call(capsys, small, tmp_path / "out", "participant", *QUICK, *arguments)
    assert code == 2 and sentence in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_derivatives_do_not_lie_among_the_raw_data(small, capsys) -> None:
    for out in (small, small / "sub-01", small / "results"):
        code, _, errors = call(capsys, small, out, "participant", *QUICK)
        assert code == 2 and "outside of the raw data" in errors
    assert not (small / "results").exists()


def test_a_folder_of_something_else_is_left_alone(small, tmp_path, capsys) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    code, _, errors = call(capsys, small, tmp_path / "mine", "participant", *QUICK)
    assert code == 2 and "holds something else (it has notes.txt)" in errors
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_json_says_what_is_done(small, tmp_path, capsys) -> None:
    code, output, _ = call(capsys, small, tmp_path / "out", "participant", *QUICK, "--json", "--images", "*ses-b*")
    assert code == 0 and json.loads(output)["finished"] == ["sub-02_ses-b_T1w"]


def test_real_brains_with_their_manual_labels(tmp_path, capsys) -> None:
    dataset, out = tmp_path / "malc", tmp_path / "out"
    make_set(dataset, ())
    subjects = ("1000", "1001", "1002")
    for subject in subjects:
        place = dataset / f"sub-{subject}" / "anat"
        place.mkdir(parents=True)
        (place / f"sub-{subject}_T1w.nii.gz").symlink_to(shared(f"malc/{subject}_SS.nii.gz"))
        labels = dataset / SEGMENTATION / f"sub-{subject}" / "anat"
        labels.mkdir(parents=True)
        (labels / f"sub-{subject}_desc-manual_dseg.nii.gz").symlink_to(shared(f"malc/{subject}_glm.nii.gz"))
    (dataset / SEGMENTATION / "dseg.tsv").write_text("index\tname\n44\tright cerebral white matter\n"
                                                     "45\tleft cerebral white matter\n")  # fmt: skip
    options = ["--model", SMALL, "--samples", "3", "--block", "3", "--size", "192x224", "--layers", "conv*"]
    code, *_ = call(capsys, dataset, out, "participant", *options, "--segmentation", dataset / SEGMENTATION)
    assert code == 0
    assert call(capsys, dataset, out, "group")[0] == 0
    found = {(r["layer"], r["region"]): r for r in rows(out / "group_sigbits.tsv") if r["measure"] == "bits_mean"}
    for side in ("left", "right"):
        row = found["conv2", f"{side} cerebral white matter"]
        assert row["subjects"] == "3" and 5 < float(row["low"]) <= float(row["mean"]) <= float(row["high"]) < 24
    assert complaints(out) == []
