"""Does a campaign in array jobs of a real Slurm give the bits of one process, with a job cancelled in the middle?"""

import subprocess
import threading
import time

import pytest

import mcaprobe
from mcaprobe.errors import InputError, RunFailure
from tests.mcaprobe import small_models as models
from tests.mcaprobe.one_node_slurm import configuration as configuration
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.test_campaign import Watcher

OPTIONS = {"samples": 10, "block": 2, "keep_moments": "conv2", "keep_samples": "conv2",
           "metrics": [f"{models.HERE}:mean_of"]}  # fmt: skip
MODEL = f"{models.HERE}:build_small"

submitit = pytest.importorskip("submitit", reason="the extra `cluster` is not installed")


@pytest.fixture
def slurm(configuration, monkeypatch):
    """Slurm's commands, and what a task that is gone may take, as this test has them; the arrays are recorded."""
    from mcaprobe import slurm

    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.setattr(slurm, "GRACE", 1.0)
    arrays = []
    real = submitit.AutoExecutor.map_array

    def recorded(self, function, calls):
        arrays.append(len(calls))
        return real(self, function, calls)

    monkeypatch.setattr(submitit.AutoExecutor, "map_array", recorded)
    return arrays


def cancel_first(seen: list[str]) -> None:
    """Cancel the first task that runs."""
    while True:
        told = subprocess.run(["squeue", "--array", "--noheader", "--states=R", "--format=%i"], capture_output=True,
                              text=True)  # fmt: skip
        if told.stdout.split():
            seen.append(told.stdout.split()[0])
            subprocess.run(["scancel", seen[0]], check=True)
            return
        time.sleep(0.1)


@pytest.mark.slurm
def test_a_job_that_is_cancelled_in_the_middle_costs_no_bit(slurm, tmp_path):
    mcaprobe.run(MODEL, models.image(), out=tmp_path / "alone", **OPTIONS)
    cancelled, watcher = [], Watcher()
    thread = threading.Thread(target=cancel_first, args=(cancelled,))
    thread.start()
    mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", executor="slurm", workers=2, chunk=2,
                 observer=watcher, **OPTIONS)  # fmt: skip
    thread.join()
    lost = [s for s in watcher.said if "given out again" in s]
    assert len(lost) == 1 and cancelled[0] in lost[0], watcher.said
    assert max(slurm) == 3 and sum(slurm) == 6  # MaxArraySize 4 is one more than the largest index
    expect_equal(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slurm
def test_what_the_scheduler_refuses_is_told_in_its_words(slurm, tmp_path):
    with pytest.raises(RunFailure, match=r"5 of 5 units failed(?s:.*)Slurm refuses the job: .*partition"):
        mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", executor="slurm", tries=1,
                     executor_options={"slurm_partition": "none"}, **OPTIONS)  # fmt: skip


@pytest.mark.slurm
def test_an_interrupted_campaign_leaves_no_job_and_goes_on(slurm, tmp_path):
    class Interrupt(Watcher):
        def advance(self, samples):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", executor="slurm", observer=Interrupt(), **OPTIONS)
    left = subprocess.run(["squeue", "--noheader", "--states=R,PD"], capture_output=True, text=True)
    assert left.stdout == ""
    mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", **OPTIONS)
    mcaprobe.run(MODEL, models.image(), out=tmp_path / "alone", **OPTIONS)
    expect_equal(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slurm
def test_options_that_submitit_refuses_are_one_sentence(slurm, tmp_path):
    with pytest.raises(InputError, match=r"submitit refuses the options .*no_such"):
        mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", executor="slurm", executor_options={"no_such": 1})


def test_without_slurm_the_sentence_names_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs Slurm's command scontrol, which is not here"):
        mcaprobe.run(MODEL, models.image(), out=tmp_path / "run", executor="slurm", **OPTIONS)
