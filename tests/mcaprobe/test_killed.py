"""Does a campaign survive kill -9 at any moment?"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcaprobe.killing import campaign
from tests.mcaprobe.run_directories import expect_equal

KILLS = 20


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of runs that were killed once and resumed, and what their processes told."""
    folder = tmp_path_factory.mktemp("killed")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.mcaprobe.killing", str(folder), str(KILLS)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)["trials"]


def test_most_kills_met_a_running_process(killed):
    assert sum(trial["killed"] for trial in killed[1]) >= KILLS * 3 // 4


@pytest.mark.parametrize("trial", range(KILLS))
def test_a_killed_run_ends_with_the_same_bits(killed, trial):
    expect_equal(killed[0] / "fresh", killed[0] / str(trial))


@pytest.mark.parametrize("trial", range(KILLS))
def test_at_most_the_chunk_in_flight_is_repeated(killed, trial):
    before, after = killed[1][trial]["before"], killed[1][trial]["after"]
    assert sorted({*before, *after}) == ["0", "1", "2", "3", "4"]
    repeated = set(before) & set(after)
    assert repeated <= set(before[-1:])
    assert len(before) + len(after) == 5 + len(repeated)


def test_chunks_that_were_left_between_the_manifest_and_their_removal_are_removed(killed, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(killed[0] / "fresh", run)
    (run / "chunks/0-0").mkdir(parents=True)
    (run / "chunks/0-0/index.json").write_text("{}")
    campaign(run, log)
    assert not log.exists() and not (run / "chunks").exists()
    expect_equal(killed[0] / "fresh", run)


def test_nothing_temporary_is_left(killed):
    assert not [p for p in killed[0].rglob("*") if p.name.startswith((".writing-", ".lock"))]
