"""Does a campaign on a Dask cluster of processes give the bits of one process, with a worker killed in the middle?"""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import mcaprobe
from mcaprobe.errors import InputError, RunFailure
from tests.mcaprobe import small_models as models
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.run_directories import expect_equal

OPTIONS = {"samples": 8, "block": 2, "keep_moments": "conv2", "keep_samples": "conv2",
           "metrics": [f"{models.HERE}:mean_of"]}  # fmt: skip

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    mcaprobe.run(faults.HERE, models.image(), out=folder, **OPTIONS)
    return folder


def test_a_worker_that_is_killed_in_the_middle_costs_no_bit(alone, tmp_path, monkeypatch):
    faults.plant(monkeypatch, tmp_path / "faults", "kill", 1)
    mcaprobe.run(faults.HERE, models.image(), out=tmp_path / "run", executor="dask", workers=2, **OPTIONS)
    assert (tmp_path / "faults/0").exists()
    expect_equal(alone, tmp_path / "run")


def test_a_cluster_that_runs_is_used_by_its_client_with_a_worker_killed_from_outside(alone, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        pids = client.run(os.getpid)

        def kill() -> None:
            while not list(tmp_path.glob("run/chunks/[0-9]*")):
                time.sleep(0.01)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        mcaprobe.run(faults.HERE, models.image(), out=tmp_path / "run", executor=client.get_executor(pure=False),
                     **OPTIONS)  # fmt: skip
        thread.join()
    expect_equal(alone, tmp_path / "run")


def test_a_unit_that_kills_every_worker_is_listed(tmp_path, monkeypatch):
    faults.plant(monkeypatch, tmp_path / "faults", "kill", 99)
    with pytest.raises(RunFailure, match=r"1 of 1 units failed(?s:.*)samples 0-1: its worker was lost \(KilledWorker"):
        mcaprobe.run(faults.HERE, models.image(), out=tmp_path / "run", samples=2, executor="dask", workers=1, tries=1)


def test_options_that_dask_refuses_and_schedulers_that_are_not_there_are_one_sentence(tmp_path):
    for options, sentence in (
        ({"no_such": 1}, "Dask refuses the options"),
        ({"address": "tcp://127.0.0.1:1", "timeout": 1}, "takes neither workers nor other options"),
    ):
        with pytest.raises(InputError, match=sentence):
            mcaprobe.run(models.build_line(), models.line(), out=tmp_path / "run", executor="dask",
                         executor_options=options)  # fmt: skip


def test_without_the_packages_the_sentence_says_what_to_install(tmp_path):
    script = (
        "import sys; sys.modules['distributed'] = None; sys.modules['submitit'] = None\n"
        "from mcaprobe.executors import Engine; from mcaprobe.errors import InputError; from pathlib import Path\n"
        "for name in ('dask', 'slurm'):\n"
        "    try:\n"
        "        with Engine(name).opened(Path('.')): pass\n"
        "    except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "The executor dask is the package dask[distributed], which is not installed: pip install 'mcaprobe[cluster]'.",
        "The executor slurm is the package submitit, which is not installed: pip install 'mcaprobe[cluster]'.",
    ]
