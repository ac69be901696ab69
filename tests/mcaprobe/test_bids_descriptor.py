"""Does the committed Boutiques descriptor describe the command as it is?"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mcaprobe
from mcaprobe.__main__ import main, parser
from tests.mcaprobe.bids_sets import tool

FILE = Path(mcaprobe.__file__).parent / "bids_app" / "descriptor.json"


def printed(capsys) -> str:
    capsys.readouterr()
    assert main(["bids", "--print-descriptor"]) == 0
    return capsys.readouterr().out


def test_the_committed_descriptor_is_that_of_the_command(capsys) -> None:
    made, there = json.loads(printed(capsys)), json.loads(FILE.read_text())
    del made["tool-version"]  # a source tree that is not installed has none
    version = there.pop("tool-version")
    assert made == there, "mcaprobe bids --print-descriptor > mcaprobe/bids_app/descriptor.json"
    assert f'version = "{version}"' in (FILE.parents[2] / "pyproject.toml").read_text()


def test_every_option_of_the_command_is_an_input() -> None:
    about = json.loads(FILE.read_text())
    flags = {entry.get("command-line-flag") for entry in about["inputs"]}
    ours = next(a for a in parser()._actions if a.choices and "bids" in a.choices).choices["bids"]
    options = {a.option_strings[0] for a in ours._actions if a.option_strings}
    assert options - flags == {"-h", "--print-descriptor"} and flags - options == {None}
    keys = about["command-line"].split()[2:]
    assert keys == [entry["value-key"] for entry in about["inputs"]]


def test_boutiques_accepts_the_descriptor() -> None:
    done = subprocess.run([tool("bosh"), "validate", str(FILE)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "OK" in done.stdout, done.stdout + done.stderr


def test_boutiques_refuses_a_descriptor_whose_keys_are_missing(tmp_path) -> None:
    about = json.loads(FILE.read_text())
    about["command-line"] = "mcaprobe bids [DATASET]"
    (tmp_path / "broken.json").write_text(json.dumps(about))
    done = subprocess.run([tool("bosh"), "validate", str(tmp_path / "broken.json")], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode != 0 or "OK" not in done.stdout


def test_the_command_that_boutiques_makes_is_one_that_is_read(tmp_path) -> None:
    values = {
        "dataset": str(tmp_path), "out": "here", "level": "participant", "model": "demo", "samples": 7,
        "participant_label": ["01", "02"], "slice": [3, 4], "keep_moments": ["*pool*"], "mask_below": 1.5,
        "interval": "bootstrap", "quiet": True, "size": "24x20",
    }  # fmt: skip
    (tmp_path / "values.json").write_text(json.dumps(values))
    command = [tool("bosh"), "exec", "simulate", str(FILE), "-i", str(tmp_path / "values.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("mcaprobe bids"))
    args = parser().parse_args(shlex.split(line)[1:])
    assert (args.level, args.samples, args.participant_label, args.slice) == ("participant", 7, ["01", "02"], [3, 4])
    assert (args.keep_moments, args.mask_below, args.interval, args.quiet) == (["*pool*"], 1.5, "bootstrap", True)
    assert args.size == (24, 20) and args.dataset == tmp_path


def test_the_help_does_not_wait_for_torch() -> None:
    code = "import sys, mcaprobe.__main__ as m; m.main(['bids', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


@pytest.mark.parametrize("level", ["participants", "session"])
def test_another_level_is_refused(capsys, level) -> None:
    assert main(["bids", "a", "b", level]) == 2
    assert "participant" in capsys.readouterr().err
