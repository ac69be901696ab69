"""What does the command line answer when it is asked for decisions?"""

import json
import shutil

import pytest
import torch
from torch import nn

import mcaprobe
from mcaprobe.commands.reporting import main_rows
from mcaprobe.flips import claim
from tests.mcaprobe.command_line import call
from tests.mcaprobe.voting import LABELS, head_file, vote


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """A folder with the head and a run of it, `run`."""
    folder = tmp_path_factory.mktemp("voted")
    head_file(folder)
    vote(folder, folder / "run")
    return folder


def test_the_table_of_decisions(capsys, voted):
    code, output, _ = call(capsys, "digits", voted / "run", "--decisions")
    assert code == 0 and max(map(len, output[: output.index("is also")].splitlines())) <= 120
    lines = output.splitlines()
    found = {d.region: d for d in mcaprobe.decisions(voted / "run", LABELS)}
    (line,) = [line for line in lines if line.startswith(LABELS)]
    d = found["brain"]
    assert line.split() == [
        LABELS, "1x24x24", "brain", "labels", str(d.decisions), f"{100 * d.flip_rate:.1f}",
        f"{100 * d.flipped_once:.1f}", f"{100 * d.largest_rate:.1f}",
    ]  # fmt: skip
    assert "pool.indices is also unpool.targets." in lines and claim(6, 0.95) in lines
    assert "n = 6 samples" in output and "no interval" in output


def test_decisions_as_json_quietly_and_of_some_layers(capsys, voted):
    code, output, _ = call(capsys, "digits", voted / "run", "--decisions", "--json", "--confidence", ".9")
    found = json.loads(output)
    assert code == found["exit_code"] == 0 and found["claim"] == claim(6, 0.9)
    assert found["decisions"] == [d.as_dict() for d in mcaprobe.decisions(voted / "run", confidence=0.9)]
    assert call(capsys, "digits", voted / "run", "--decisions", "--quiet")[1] == f"{voted / 'run'}\n"
    output = call(capsys, "digits", voted / "run", "--decisions", "--layers", "pool*")[1]
    assert "pool.indices" in output and LABELS not in output
    code, output, _ = call(capsys, "digits", voted / "run", "--decisions", "--layers", "conv*")
    assert code == 0 and output.startswith("The run recorded no decisions among these layers")


def test_decisions_of_layers_without_moments_say_how_to_keep_them(capsys, voted, tmp_path):
    vote(voted, tmp_path / "r", keep_moments=LABELS, keep_samples=())
    output = call(capsys, "digits", tmp_path / "r", "--decisions")[1]
    assert "1 layers kept no moments, hence do not tell their decisions apart" in output
    assert "--keep-moments 'pool.indices'" in output


@pytest.mark.parametrize("option", [["--method", "general"], ["--fail-below", "3"], ["--error", "absolute"]], ids=str)
def test_options_of_bits_are_refused_for_decisions(capsys, voted, option):
    code, output, errors = call(capsys, "digits", voted / "run", "--decisions", *option)
    assert code == 2 and output == ""
    assert errors == (
        f"mcaprobe: Expected --decisions without {option[0]}: decisions have a flip rate, no significant bits.\n"
    )


def test_a_damaged_run_is_one_sentence(capsys, voted, tmp_path):
    shutil.copytree(voted / "run", tmp_path / "run")
    (tmp_path / "run/layers/%3Aoutput.labels.safetensors").write_bytes(b"short")
    code, _, errors = call(capsys, "digits", tmp_path / "run", "--decisions")
    assert code == 2 and "is damaged" in errors


def test_the_summary_of_a_run_lists_labels_beside_the_output(capsys, voted):
    output = call(capsys, "digits", voted / "run")[1]
    lines = [line.split()[0] for line in output[: output.index("Significant bits:")].splitlines()[1:] if line[0] != " "]
    assert lines == ["conv1", "norm", "pool", "pool.indices", "unpool", "conv2", LABELS]


def test_labels_take_no_activations_room_in_the_summary():
    model = nn.Sequential(*[nn.Conv2d(2, 2, 1) for _ in range(20)])  # as many as a picture has at most
    result = mcaprobe.run(model, torch.rand(1, 2, 4, 4), samples=2, keep_moments=())
    listed = [row.layer for row in main_rows(result.table())]
    assert listed == [*map(str, range(20)), LABELS]
