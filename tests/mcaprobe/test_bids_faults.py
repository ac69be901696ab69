"""Does a campaign over subjects on workers end well, whatever becomes of a subject, a worker or the whole command?"""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import mcaprobe
from mcaprobe.__main__ import main, parser
from mcaprobe.bids_app.dataset import Selection, images_of
from mcaprobe.bids_app.folder import Folder
from mcaprobe.bids_app.participant import run_participants
from mcaprobe.bids_app.settings import Machine, Questions
from mcaprobe.commands.arguments import arguments_of
from mcaprobe.executors import Engine
from mcaprobe.observer import Observer
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.bids_sets import SEGMENTATION, complaints, make_set
from tests.mcaprobe.command_line import call
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.waiting import alive, until

pytest.importorskip("ancpbids", reason="the package ancpbids, of the extra bids, is not installed")

NAMES = tuple(f"sub-0{n}/anat/sub-0{n}_T1w" for n in (1, 2, 3))
SLICES = "7:11"
MODEL = ["--model", faults.HERE, "--samples", "3", "--block", "3", "--size", "24x24", "--threads", "1",
         "--layers", "conv*"]  # fmt: skip
WHOLE = [*MODEL, "--slices", SLICES]
PROCESSES = ["--executor", "processes", "--workers", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, Path]:
    """A dataset, and its derivatives by one process without a fault: whole volumes with regions."""
    dataset = make_set(tmp_path_factory.mktemp("bids") / "heads", NAMES)
    out = dataset.parent / "alone"
    options = [*WHOLE, "--segmentation", str(dataset / SEGMENTATION), "--keep-moments", "conv2", "--mask-below", "20"]
    assert main(["bids", str(dataset), str(out), "participant", *options, "--quiet"]) == 0
    return dataset, out


@pytest.fixture
def copy(alone, tmp_path) -> Path:
    """The same dataset in a folder of the test's own."""
    return make_set(tmp_path / "heads", NAMES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Derivatives without regions and masks by one process, of the same dataset."""
    dataset = make_set(tmp_path_factory.mktemp("plain") / "heads", NAMES)
    assert main(["bids", str(dataset), str(dataset.parent / "out"), "participant", *WHOLE, "--quiet"]) == 0
    return dataset.parent / "out"


def expect_same(one: Path, other: Path) -> None:
    """Fail where tables or maps of two derivative sets differ in a byte."""
    files = {path.relative_to(one) for path in one.glob("sub-*/**/*.*") if path.suffix in (".tsv", ".gz")}
    assert files == {path.relative_to(other) for path in other.glob("sub-*/**/*.*") if path.suffix in (".tsv", ".gz")}
    assert len(files) == 3 * len(NAMES)
    assert [path for path in files if (one / path).read_bytes() != (other / path).read_bytes()] == []


def runs_of(out: Path) -> list[Path]:
    return sorted(path for path in (out / "work").iterdir() if (path / "manifest.json").is_file())


def test_the_maps_of_a_volume_are_three_dimensional_over_the_image(alone) -> None:
    dataset, out = alone
    image = nib.load(out / "sub-01/anat/sub-01_label-conv1_sigbits.nii.gz")
    assert image.shape == (24, 24, 4, 9)
    centre = nib.load(dataset / f"{NAMES[0]}.nii.gz").affine @ [10, 12, 7, 1]
    assert np.allclose(image.affine @ [12, 12, 0, 1], centre)
    about = json.loads((out / "sub-01/anat/sub-01_label-conv1_sigbits.json").read_text())
    assert about["Slice"] is None and about["Pieces"] == {"kind": "slice", "numbers": [7, 8, 9, 10]}
    mask = nib.load(out / "sub-01/anat/sub-01_label-conv2_desc-unstable_mask.nii.gz")
    assert mask.shape[:3] == (24, 24, 4) and complaints(out) == []


def test_the_group_level_takes_the_rows_of_the_volumes(alone, capsys) -> None:
    dataset, out = alone
    assert call(capsys, "bids", dataset, out, "group")[0] == 0
    runs = [mcaprobe.load(path) for path in runs_of(out)]
    expected = np.mean([run["conv2"].row("left").bits_mean for run in runs])
    lines = [line.split("\t") for line in (out / "group_sigbits.tsv").read_text().splitlines()]
    (row,) = (dict(zip(lines[0], line, strict=True)) for line in lines if line[0::2][:2] == ["conv2", "left"]
              and line[3] == "bits_mean")  # fmt: skip
    assert float(row["mean"]) == pytest.approx(expected, rel=1e-12) and row["subjects"] == "3"


def test_a_worker_that_is_killed_changes_no_bit(copy, plain, tmp_path, monkeypatch, capsys) -> None:
    faults.plant(monkeypatch, tmp_path / "faults", "kill", 1)
    out = tmp_path / "out"
    code, output, errors = call(capsys, "bids", copy, out, "participant", *WHOLE, *PROCESSES)
    assert code == 0 and output.startswith("Images done: 3.")
    assert errors.count("given out again: its worker was lost (BrokenProcessPool") == 1
    expect_same(plain, out)
    assert not (out / "work/executor").exists()


def run_on(executor, dataset: Path, out: Path, **more):
    """Run the participant level on an executor of the test's own."""
    questions = Questions(model=faults.HERE, samples=3, block=3, input_options={"size": (24, 24)}, layers=("conv*",),
                          **more)  # fmt: skip
    folder = Folder(out, dataset)
    machine = Machine(threads=1, engine=Engine(executor))
    return run_participants(folder, images_of(dataset, Selection()), questions, machine, Observer)


@pytest.mark.parametrize("executor", [faults.Gathering, faults.Losing, faults.Repeating, faults.Lying])
def test_work_that_is_reordered_lost_or_repeated_gives_the_same_bits(copy, plain, tmp_path, executor) -> None:
    outcome = run_on(executor(), copy, tmp_path / "out", slices=SLICES)
    assert len(outcome.finished) == 3 and not outcome.failed
    expect_same(plain, tmp_path / "out")


class FailingOnce(faults.Gathering):
    """Loses slice 8 of the second subject for good."""

    def one(self, future, function, work, unit) -> None:
        if "sub-02" in str(unit.parent) and 8 in unit.numbers:
            future.set_exception(ConnectionError("node gone"))
        else:
            super().one(future, function, work, unit)


def test_the_rest_is_finished_and_exactly_what_failed_runs_again(copy, plain, tmp_path) -> None:
    out = tmp_path / "out"
    outcome = run_on(FailingOnce(), copy, out, slices=SLICES)
    assert outcome.finished == ["sub-01_T1w", "sub-03_T1w"]
    ((image, why),) = outcome.failed
    assert image.name == "sub-02_T1w" and "\n" not in why
    assert why == "1 of 4 units failed: slice 8: its worker was lost (ConnectionError: node gone)."
    again = faults.Gathering()
    outcome = run_on(again, copy, out, slices=SLICES)
    assert again.runs == [8] and outcome.finished == ["sub-02_T1w"] and len(outcome.skipped) == 2
    expect_same(plain, out)


def test_workers_stay_for_all_subjects_and_start_only_for_work(copy, tmp_path, monkeypatch, capsys) -> None:
    opened = []
    real = Engine.opened

    def counted(self, folder):
        opened.extend([folder] if self.keeper is None else [])
        return real(self, folder)

    monkeypatch.setattr(Engine, "opened", counted)
    arguments = ("bids", copy, tmp_path / "out", "participant", *WHOLE, *PROCESSES)
    assert call(capsys, *arguments)[0] == 0 and opened == [tmp_path / "out/work/executor"]
    assert call(capsys, *arguments)[0] == 0 and len(opened) == 1


def test_a_corrupt_subject_among_good_ones_is_told_with_its_command(copy, plain, tmp_path, capsys) -> None:
    out, broken = tmp_path / "out", copy / f"{NAMES[1]}.nii.gz"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    options = [*WHOLE, *PROCESSES, "--tries", "2", "--overwrite"]
    code, output, errors = call(capsys, "bids", copy, out, "participant", *options)
    assert code == 3 and output.startswith("Images done: 2.")
    retry = shlex.split(errors.splitlines()[-1])
    assert retry[retry.index("--images") + 1] == "sub-02_T1w" and "--overwrite" not in retry
    assert [retry[retry.index(name) + 1] for name in ("--executor", "--workers", "--tries", "--slices")] == [
        "processes", "2", "2", SLICES]  # fmt: skip
    broken.write_bytes(good)
    code, output, _ = call(capsys, *retry[1:])
    assert code == 0 and output.startswith("Images done: 1.")
    expect_same(plain, out)


def workers_of(pid: int) -> list[int]:
    """Return the processes that multiprocessing spawned for a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            line = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in line:
            found.append(int(path.parent.name))
    return found


def test_a_killed_command_leaves_no_workers_and_is_resumed_bit_for_bit(copy, plain, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["bids", str(copy), str(out), "participant", *WHOLE, *PROCESSES]
    process = subprocess.Popen([sys.executable, "-m", "mcaprobe", *arguments, "--quiet"])
    try:
        pieces = out / "work/sub-02_T1w/pieces"
        assert until(lambda: process.poll() is not None or (pieces.is_dir() and any(pieces.glob("[0-9]*"))), 240.0)
        assert process.poll() is None, "the command ended before it could be killed"
        workers = workers_of(process.pid)
        assert len(workers) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert until(lambda: not any(alive(pid) for pid in workers), 30.0)
    assert (out / "work/sub-01_T1w.done.json").is_file() and not (out / "work/sub-02_T1w.done.json").exists()
    first = (out / "work/sub-01_T1w/manifest.json").stat().st_mtime_ns
    code, output, _ = call(capsys, *arguments)
    assert code == 0 and "complete before: 1." in output
    assert (out / "work/sub-01_T1w/manifest.json").stat().st_mtime_ns == first
    expect_same(plain, out)
    assert not list(out.rglob(".writing-*"))


BAD = {
    "executor": (["--executor", "slrum"], "Expected an executor among local, processes, dask, slurm, got 'slrum'"),
    "workers": (["--workers", "2"], "The executor local is this process: it has 1 worker, not 2."),
    "option": (["--executor", "dask", "--executor-option", "address"], "as KEY=VALUE, got 'address'"),
    "tries": (["--executor", "processes", "--tries", "0"], "Expected at least 1 try, got 0."),
    "both": (["--slice", "8"], "Expected single slices (--slice) or the whole volume (--slices, --patches), not both."),
    "number": (["--slices", "8"], "got '8'; a single slice is --slice 8."),
    "patches": (["--patches", "8"], "not both"),
    "regions": (["--regions", "left"], "--regions chooses among the labels of --segmentation"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_made(copy, tmp_path, capsys, case) -> None:
    options, sentence = BAD[case]
    code, _, errors = call(capsys, "bids", copy, tmp_path / "out", "participant", *WHOLE, *options)
    assert code == 2 and sentence in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_single_slices_on_workers_are_those_of_one_process(copy, tmp_path, capsys) -> None:
    options = [*MODEL, "--slice", "8", "--images", "sub-01_T1w"]
    assert call(capsys, "bids", copy, tmp_path / "one", "participant", *options)[0] == 0
    assert call(capsys, "bids", copy, tmp_path / "two", "participant", *options, *PROCESSES)[0] == 0
    expect_equal(tmp_path / "one/work/sub-01_chunk-8_T1w", tmp_path / "two/work/sub-01_chunk-8_T1w")


def test_an_option_that_is_repeated_is_repeated_in_the_retry() -> None:
    line = ["bids", "set", "out", "participant", "--executor", "dask", "--executor-option", "a=1",
            "--executor-option", "b=2", "--slice", "3", "4"]  # fmt: skip
    args = parser().parse_args(line)
    again = parser().parse_args(["bids", *arguments_of(args.parser, args)])
    assert again.executor_option == ["a=1", "b=2"] and again.slice == [3, 4] and again.executor == "dask"
