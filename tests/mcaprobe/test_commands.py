"""What does the command line answer, with which exit code?"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe import storage
from mcaprobe.__main__ import main
from tests.mcaprobe import small_models as models
from tests.mcaprobe.command_line import call
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.small_head import write_head
from tests.mcaprobe.small_models import HERE

SMALL, LINE = f"{HERE}:build_small", f"{HERE}:build_line"
QUICK = ["--samples", "4", "--block", "2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with an image of a head in small, and tensors."""
    folder = tmp_path_factory.mktemp("inputs")
    write_head(folder / "head.nii.gz")
    np.save(folder / "image.npy", models.image().numpy())
    np.save(folder / "line.npy", models.line().numpy())
    np.save(folder / "nan.npy", np.array([[[1.0, np.nan, 2.0]]], np.float32))
    np.save(folder / "integers.npy", np.arange(24).reshape(1, 1, 24))
    (folder / "text.nii.gz").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """A run on the head."""
    out = tmp_path_factory.mktemp("run") / "run"
    arguments = ["run", SMALL, str(inputs / "head.nii.gz"), "--out", str(out), *QUICK, "--size", "24x24",
                 "--keep-moments", "conv2", "--metric", f"{HERE}:mean_of", f"{HERE}:two_numbers",
                 "--quiet"]  # fmt: skip
    assert main(arguments) == 0
    return out


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["digits"], ["heatmap"], ["mask"], ["compare"], ["report"], ["doctor"], ["plan"]],
    ids=["mcaprobe", "run", "digits", "heatmap", "mask", "compare", "report", "doctor", "plan"],
)
def test_help_has_examples_and_exit_codes(capsys, command):
    code, output, _ = call(capsys, *command, "--help")
    assert code == 0
    assert re.search("^examples?:", output, re.M) and "exit codes:" in output
    assert max(map(len, output.splitlines())) <= 120


def test_help_does_not_wait_for_torch():
    code = "import sys\nfrom mcaprobe.__main__ import main\nmain(['--help'])\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_quiet_prints_only_the_path(capsys, inputs, tmp_path):
    code, output, errors = call(capsys, "run", LINE, inputs / "line.npy", "--out", tmp_path / "r", *QUICK, "--quiet")
    assert (code, output, errors) == (0, f"{tmp_path / 'r'}\n", "")


def test_the_table_fits_120_columns_and_keeps_brain_and_background_apart(capsys, run):
    code, output, _ = call(capsys, "digits", run)
    assert code == 0
    table = output[: output.index("Significant bits:")]
    assert max(map(len, table.splitlines())) <= 120
    assert "brain" in table and "background" in table and "conv2" in table and "metric:mean_of" in table
    assert "n = 4 samples support p = 0.47 at 95% confidence" in output and "p = 0.95 needs 59" in output
    assert "memory: predicted" in output


def test_json_is_one_object_with_every_row(capsys, run, inputs, tmp_path):
    code, output, errors = call(capsys, "run", LINE, inputs / "line.npy", "--out", tmp_path / "r", *QUICK, "--json")
    found = json.loads(output)
    assert code == found["exit_code"] == 0 and found["status"] == "complete" and errors == ""
    assert [row["layer"] for row in found["rows"]] == [row.layer for row in mcaprobe.load(tmp_path / "r").table()]
    found = json.loads(call(capsys, "digits", run, "--json", "--fail-below", "60")[1])
    assert found["gate"]["fail_below"] == 60 and found["exit_code"] == 1
    found = json.loads(call(capsys, "digits", tmp_path / "nowhere", "--json")[1])
    assert found["exit_code"] == 2 and "is no run directory" in found["error"]


def test_the_gate_decides_the_exit_code(capsys, run, inputs, tmp_path):
    assert call(capsys, "digits", run, "--layers", "conv1", "--fail-below", "2")[0] == 0
    code, output, _ = call(capsys, "digits", run, "--layers", "conv1", "--fail-below", "40")
    assert code == 1 and "1 layers are below" in output and "conv1 (brain):" in output
    arguments = ["run", LINE, inputs / "line.npy", "--out", tmp_path / "r", *QUICK, "--fail-below", "50"]
    assert call(capsys, *arguments)[0] == 1
    code, _, errors = call(capsys, *arguments)  # the complete run is judged again
    assert code == 1 and "complete: nothing to do" in errors


def test_digits_of_the_runs_own_estimator_are_the_table(run):
    from mcaprobe.digits import recompute

    stored = mcaprobe.load(run)
    found = recompute(stored, stored.estimator)
    assert "conv2" in found.exact and "conv1" in found.binned and "pool.indices" in found.exact
    for new, old in zip(found.rows, stored.table(), strict=True):
        assert (new.layer, new.region, new.elements) == (old.layer, old.region, old.elements)
        if new.layer in found.exact:
            assert new == old
        elif old.bits_mean is not None:
            assert new.bits_mean == pytest.approx(old.bits_mean, abs=1 / 16)


@pytest.mark.parametrize(
    "options",
    [{"method": "general"}, {"confidence": 0.99}, {"error": "absolute", "reference": "mean"}],
    ids=str,
)
def test_digits_by_another_estimator_are_those_of_a_run_with_it(run, inputs, options):
    from mcaprobe.digits import recompute

    estimator = mcaprobe.Estimator(**options)
    found = {(r.layer, r.region): r for r in recompute(mcaprobe.load(run), estimator).rows}
    again = mcaprobe.run(models.build_small(), inputs / "head.nii.gz", samples=4, block=2, estimator=estimator,
                         input_options={"size": (24, 24)}, keep_moments=())  # fmt: skip
    for row in again.table():
        other = found[row.layer, row.region]
        assert other.estimator == row.estimator
        if row.layer == "conv2":
            assert other == row
        elif row.bits_mean is not None:
            assert other.bits_mean == pytest.approx(row.bits_mean, abs=1 / 16)


def test_the_heatmap_is_drawn_again_without_the_model(capsys, run, tmp_path):
    code, output, _ = call(capsys, "heatmap", run, "--out", tmp_path / "again.png", "--quiet")
    assert code == 0 and output == f"{tmp_path / 'again.png'}\n"
    assert (tmp_path / "again.png").read_bytes() == (run / "heatmap.png").read_bytes()
    assert call(capsys, "heatmap", run, "--out", tmp_path / "some.svg", "--layers", "conv*")[0] == 0
    code, _, errors = call(capsys, "heatmap", run, "--out", tmp_path / "x.docx")
    assert code == 2 and "Expected a picture ending in .png" in errors


def test_the_maps_overlay_the_input(run, inputs):
    whole = nib.load(inputs / "head.nii.gz")
    pooled = nib.load(run / "maps/pool.nii.gz")
    assert pooled.shape == (12, 12, 1, 9)
    corner = pooled.affine @ [
        0,
        0,
        0,
        1,
    ]  # the centre of the first window: between voxels 0 and 1 of the padded slice
    expected = whole.affine @ [0.5 - 2, 0.5 - 0, corner[2] / 2, 1]
    assert corner == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nomodule:build", "{line}"], "Cannot import the module nomodule"),
        (["nocolon", "{line}"], "Expected the model as package.module:name or demo, got 'nocolon'"),
        ([f"{HERE}:build_smal", "{line}"], "has no build_smal: the nearest are build_small"),
        ([f"{HERE}:build_nothing", "{line}"], "to be a torch.nn.Module or to return one, got str"),
        ([f"{HERE}:build_failing", "{line}"], "raised OSError: no weights here"),
        ([f"{HERE}:build_counting", "{line}"], "The model changes its own calls in forward"),
        ([LINE, "{folder}/nothing.nii.gz"], "There is no file"),
        ([LINE, "{folder}/text.nii.gz"], "text.nii.gz"),
        ([LINE, "{folder}/nan.npy"], "NaN"),
        ([LINE, "{folder}/integers.npy"], "Expected a floating-point input"),
        ([LINE, "{line}", "--layers", "layer.*"], "layers.0"),
        (
            [LINE, "{line}", "--keep-moments", "layers.7"],
            "--keep-moments layers.7 matches none of the .* layers: the nearest are layers",
        ),
        ([LINE, "{line}", "--mode", "randon"], "Expected a mode among random"),
        ([LINE, "{line}", "--samples", "1"], "at least 2 samples"),
        ([LINE, "{line}", "--samples", "x"], "Argument --samples: invalid int value: 'x'"),
        ([LINE, "{line}", "--memory", "lots"], "Expected a size such as 4GiB"),
        ([LINE, "{line}", "--memory", "1MiB"], "are allowed: raise --memory"),
        ([LINE, "{line}", "--probability", "2"], "probability"),
        ([LINE, "{line}", "--device", "nonsense"], "The device 'nonsense' cannot be used"),
        ([LINE, "{line}", "--metric", f"{HERE}:nothing"], f"The module {HERE} has no nothing"),
        ([SMALL, "{folder}/head.nii.gz", "--slice", "99"], "slice"),
        ([SMALL, "{folder}/head.nii.gz", "--size", "axb"], "expected a size such as 256x256"),
        ([LINE, "{line}", "--chunk", "3", "--block", "2"], "multiple of the block"),
        ([LINE, "{line}", "--color", "red"], "Unrecognized arguments: --color red"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, inputs, tmp_path, arguments, sentence):
    filled = [a.format(line=inputs / "line.npy", folder=inputs) for a in arguments]
    code, output, errors = call(capsys, "run", *filled, "--out", tmp_path / "r")
    assert code == 2 and output == ""
    assert re.search(sentence, errors) and errors.startswith("mcaprobe: ") and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([f"{HERE}:build_raising", "--route", "model"], "The model raised ValueError after layer layers.1"),
        (
            [f"{HERE}:build_broken"],
            "The model raised ZeroDivisionError in a plain, unperturbed forward .*: nothing works",
        ),
        (
            [LINE, "--metric", f"{HERE}:raising_metric"],
            "The metric .*:raising_metric raised KeyError: 'no such label'",
        ),
        (
            [SMALL],
            "The model raised ValueError in a plain, unperturbed forward of the input .1, 1, 24.: expected 4D",
        ),
    ],
    ids=["in-the-middle", "always", "metric", "shape"],
)
def test_a_model_that_raises_is_one_sentence_and_exit_code_3(capsys, inputs, tmp_path, arguments, sentence):
    code, _, errors = call(capsys, "run", arguments[0], inputs / "line.npy", "--out", tmp_path / "r", *arguments[1:])
    assert code == 3 and re.search(sentence, errors)
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(storage.TEMPORARY)]


def test_a_model_in_training_mode_is_put_in_evaluation_mode_and_said(capsys, inputs, tmp_path):
    code, _, errors = call(
        capsys, "run", f"{HERE}:build_training", inputs / "line.npy", "--out", tmp_path / "r", *QUICK
    )
    assert code == 0 and "was in training mode: it was put in evaluation mode" in errors


def test_what_the_user_states_wins_over_the_models_input_options(inputs):
    from mcaprobe.loading import load_input

    model = models.build_small()
    model.input_options = {"plane": "coronal", "size": (32, 32)}
    found = load_input(inputs / "head.nii.gz", model, {"size": (16, 16)})
    assert found.options.plane == "coronal" and found.tensor.shape == (1, 1, 16, 16)
    model.input_options = {"plan": "coronal"}
    with pytest.raises(mcaprobe.InputError, match=r"no input option plan: the nearest are plane"):
        load_input(inputs / "head.nii.gz", model, {})


def test_a_damaged_run_is_one_sentence(capsys, run, tmp_path):
    shutil.copytree(run, tmp_path / "r")
    (tmp_path / "r/layers/conv1.safetensors").write_bytes(b"short")
    code, _, errors = call(capsys, "digits", tmp_path / "r")
    assert code == 2 and "conv1.safetensors is damaged" in errors
    (tmp_path / "r/table.csv").unlink()
    code, _, errors = call(capsys, "heatmap", tmp_path / "r")
    assert code == 2 and "table.csv is missing" in errors


def test_ctrl_c_leaves_a_run_that_goes_on(inputs, tmp_path):
    root = Path(__file__).resolve().parents[2]
    arguments = [
        LINE,
        str(inputs / "line.npy"),
        "--samples",
        "400",
        "--block",
        "2",
        "--chunk",
        "2",
        "--threads",
        "1",
    ]
    command = [sys.executable, "-m", "mcaprobe", "run", *arguments, "--out", str(tmp_path / "r")]
    process = subprocess.Popen(
        command, cwd=root, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    chunks = tmp_path / "r/chunks"
    while process.poll() is None and not (chunks.is_dir() and len(list(chunks.glob("[0-9]*"))) >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted: finished chunks stay" in errors and "Traceback" not in errors
    done = {p.name for p in chunks.iterdir()}
    assert "0-1" in done and not [name for name in done if name.startswith(storage.TEMPORARY)]


def test_the_command_and_the_function_leave_the_same_directory(inputs, tmp_path):
    assert main(["run", LINE, str(inputs / "line.npy"), "--out", str(tmp_path / "a"), *QUICK, "--quiet"]) == 0
    mcaprobe.run(LINE, inputs / "line.npy", out=tmp_path / "b", samples=4, block=2)
    expect_equal(tmp_path / "a", tmp_path / "b")


def test_a_path_and_its_tensor_give_the_same_rows(inputs):
    a = mcaprobe.run(models.build_line(), inputs / "line.npy", samples=4, block=2)
    b = mcaprobe.run(models.build_line(), torch.from_numpy(np.load(inputs / "line.npy")), samples=4, block=2)
    assert a.table() == b.table()
