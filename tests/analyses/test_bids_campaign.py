"""Does the demonstration on labelled brains end as it says, and does the benchmark of workers count what it says?"""

import csv
import json
from pathlib import Path

import nibabel as nib
import pytest

from analyses.__main__ import main
from analyses.benchmarks import workers
from analyses.benchmarks.workers import Setting
from analyses.brains import TEST
from analyses.experiments import bids_campaign
from analyses.experiments.bids_campaign import Config, expect_same, make_set
from mcaprobe.errors import InputError, RunFailure
from tests.mcaprobe.bids_sets import complaints, head, save
from tests.mcaprobe.small_models import HERE
from tests.shared_data import shared

SLICES = "90:92"  # of each brain; all of them take hours


@pytest.mark.long
def test_five_labelled_brains_are_killed_once_and_resumed_bit_for_bit(tmp_path, capfd) -> None:
    pytest.importorskip("ancpbids", reason="the package ancpbids, of the extra bids, is not installed")
    for number in TEST:
        shared(f"malc/{number}_SS.nii.gz")
    folder = tmp_path / "brains"
    command = ["bids", folder, "--slices", SLICES, "--samples", 2, "--workers", 2, "--layers", "decode*unpool",
               ":output*", "--compare"]  # fmt: skip
    assert main([str(part) for part in command]) == 0
    output = capfd.readouterr().out
    assert "Killed after" in output and "with 1 images" in output and "complete before: 1." in output
    out = folder / "dataset/derivatives/mcaprobe"
    with (out / "group_sigbits.tsv").open(newline="") as file:
        rows = {(r["region"], r["measure"]): r for r in csv.DictReader(file, delimiter="\t")
                if r["layer"] == "decode1.unpool"}  # fmt: skip
    for region in ("brain", "Right Cerebral White Matter", "Left Cerebral White Matter"):
        row = rows[region, "bits_mean"]
        assert row["subjects"] == "5" and 5 < float(row["low"]) < float(row["mean"]) < float(row["high"]) < 24
    (image,) = out.glob("sub-1013/anat/*label-decode1unpool_sigbits.nii.gz")
    assert nib.load(image).shape == (256, 256, 2, 9)
    assert len(list(out.glob("sub-*.html"))) == 5 and complaints(out) == []


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder like that of the challenge, with one brain."""
    save(tmp_path / "malc/1_SS.nii.gz", head(1))
    save(tmp_path / "malc/1_glm.nii.gz", (head(1) > 0) * 44.0)
    (tmp_path / "malc" / bids_campaign.TABLE).write_text(
        "Label Number,Label Name,Class\n4,Ventricle,CSF\n44,White,WM\n"
    )
    return tmp_path / "malc"


def test_the_set_links_images_and_names_labels(source, tmp_path) -> None:
    dataset = make_set(Config(tmp_path / "set", ["1"], source=source))
    assert (dataset / "sub-1/anat/sub-1_T1w.nii.gz").resolve() == source / "1_SS.nii.gz"
    assert (dataset / "derivatives/manual/dseg.tsv").read_text() == "index\tname\n4\tVentricle\n44\tWhite\n"
    with pytest.raises(InputError, match="is there already"):
        make_set(Config(tmp_path / "set", ["1"], source=source))
    with pytest.raises(InputError, match="Expected the labelled brain 2 at"):
        make_set(Config(tmp_path / "other", ["2"], source=source))


def test_files_that_differ_are_told(tmp_path) -> None:
    for name, text in (("one", "a"), ("other", "a")):
        (tmp_path / name / "sub-1" / "anat").mkdir(parents=True)
        (tmp_path / name / "sub-1/anat/x.tsv").write_text(text)
    assert expect_same(tmp_path / "one", tmp_path / "other") == 1
    (tmp_path / "other/sub-1/anat/x.tsv").write_text("b")
    with pytest.raises(RunFailure, match="1 of 1 files differ"):
        expect_same(tmp_path / "one", tmp_path / "other")


def test_speed_up_and_efficiency_are_against_the_first_row(monkeypatch) -> None:
    seconds = iter([8.0, 5.0, 4.0, 12.0, 5.0, 2.0, 10.0, 8.0, 3.0])
    monkeypatch.setattr(workers, "once", lambda setting, count: (next(seconds), b"table"))
    one, two, four = workers.run(Setting())
    assert (one["seconds"], one["low"], one["high"], one["speed_up"], one["efficiency"]) == (10.0, 8.0, 12.0, 1, 1)
    assert (two["seconds"], two["speed_up"], two["efficiency"]) == (5.0, 2.0, 1.0)
    assert four["speed_up"] == pytest.approx(10 / 3) and four["efficiency"] == pytest.approx(10 / 12)


def test_results_that_depend_on_the_workers_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(workers, "once", lambda setting, count: (1.0, str(count).encode()))
    with pytest.raises(RunFailure, match="The results with 2 workers differ"):
        workers.run(Setting())


def test_the_benchmark_writes_its_rows_with_the_machine(tmp_path, monkeypatch, capsys) -> None:
    image = save(tmp_path / "head.nii.gz", head(1))
    small = Setting(workers=(1,), repetitions=1, model=f"{HERE}:build_small", x=str(image), slices="8:9", samples=2,
                    layers=("conv*",), folder=tmp_path)  # fmt: skip
    monkeypatch.setattr("analyses.commands.benchmark_workers.setting_of", lambda args: small)
    assert main(["benchmark", "workers", "--out", str(tmp_path / "workers.csv")]) == 0
    with (tmp_path / "workers.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["workers"] == "1" and float(row["seconds"]) > 0 and row["speed_up"] == "1"
    about = json.loads((tmp_path / "workers.json").read_text())
    assert about["machine"]["cores"] and about["setting"]["slices"] == "8:9"
    assert not list(tmp_path.glob("workers-*"))


def test_no_worker_is_refused(capsys) -> None:
    assert main(["benchmark", "workers", "--workers", "0"]) == 2
    assert "Expected --workers of at least 1, got 0." in capsys.readouterr().err


def test_brains_are_resampled_where_it_is_asked_for(tmp_path) -> None:
    words = bids_campaign.command(Config(tmp_path, voxel_size=2.5), tmp_path / "out", "participant")
    assert words[words.index("--voxel-size") + 1] == "2.5"
    assert "--voxel-size" not in bids_campaign.command(Config(tmp_path), tmp_path / "out", "participant")
