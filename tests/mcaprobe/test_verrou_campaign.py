"""Is a campaign of processes like any other, and does it prove that it was perturbed? With a stand-in for Verrou."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe import processes
from mcaprobe.__main__ import main
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.launchers import Launch
from mcaprobe.observer import Observer
from mcaprobe.statistics import IndexMoments, Moments
from mcaprobe.verrou import Verrou
from tests.mcaprobe import small_models as models
from tests.mcaprobe import standin_verrou
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.small_models import HERE
from tests.reference import decision_twin as twin

POOLED, LINE = f"{HERE}:build_pooled", f"{HERE}:build_line"
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the stand-in for Verrou needs a C compiler")


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """The bin of a stand-in for Verrou."""
    return standin_verrou.install(tmp_path_factory.mktemp("standin"))


@pytest.fixture(autouse=True)
def started(standin, monkeypatch):
    """The stand-in on PATH, its runs forked from a server; the names of the runs that were started."""
    names: list[str] = []

    def spawn(launch: Launch, log: Path):
        names.append(launch.command[-1])
        return standin_verrou.Forked(launch.command, launch.environment, log, standin.parent / "libexec" / "valgrind")

    monkeypatch.setenv("PATH", f"{standin}:{os.environ['PATH']}")
    monkeypatch.setattr(processes, "spawn", spawn)
    return names


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of the test's own, with the input: a line with pairs that tie but for the order of additions."""
    monkeypatch.chdir(tmp_path)
    x = models.line()
    x[..., :16] = torch.tensor([0.3, 0.3, 0.7, 0.7] * 4)
    np.save("x.npy", x.numpy())


def campaign(out: Path, model: str = LINE, samples: int = 4, jobs: int = 2, **more):
    """Run a campaign under the stand-in."""
    more = {"keep_moments": "*", "block": 2, **more}
    return mcaprobe.run(model, "x.npy", samples=samples, out=out, verrou=Verrou(jobs=jobs), **more)


class Told(Observer):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return tmp_path_factory.mktemp("fresh")


def test_a_campaign_is_folded_as_its_samples_say(tmp_path, started):
    found = campaign(tmp_path / "r", POOLED, samples=5, keep_samples="*", metrics=[f"{HERE}:mean_of"])
    assert sorted(started) == ["0", "1", "2", "3", "4", "again", "reference"]
    emulated = mcaprobe.run(POOLED, "x.npy", samples=2)
    assert list(found.manifest["layers"]) == list(emulated.manifest["layers"])
    assert found.manifest["aliases"] == emulated.manifest["aliases"]
    for name in found.manifest["layers"]:
        reference = found.activation(name, None)
        blocks = []
        for block in (range(2), range(2, 4), range(4, 5)):
            kind = Moments if reference.is_floating_point() else IndexMoments
            blocks.append(kind.empty(reference))
            for sample in block:
                blocks[-1].update(found.activation(name, sample))
        total = blocks[0].merge(blocks[1]).merge(blocks[2])
        stored = found[name].moments.state()
        assert all(torch.equal(tensor, stored[key]) for key, tensor in total.state().items()), name
    assert found["pool.indices"].moments.change_rate().max() > 0  # the comparison was of perturbed numbers
    assert found["conv1"].moments.m2.max() > 0
    for sample in (None, *range(5)):
        labels = found.activation(":output.labels", sample)
        assert torch.equal(labels, twin.labels(found.activation(":output", sample)))
    assert [d.step for d in mcaprobe.decisions(found)] == ["pool", "labels"]
    mean = float(found.activation("conv2", 3).double().mean())
    assert found["metric:mean_of"].moments.n == 5
    lines = (tmp_path / "r/metrics.csv").read_text().splitlines()
    assert f"mean_of,3,{mean!r}" in lines or any(line.startswith("mean_of,3,") for line in lines)


def test_the_manifest_holds_what_proves_the_run(tmp_path):
    manifest = campaign(tmp_path / "r").manifest
    verrou = manifest["verrou"]
    assert verrou["version"] == "0.standin" and verrou["launcher"] == "native" and verrou["baseline_repeated"]
    assert list(verrou["counted"]) == ["reference", "again", "0", "1", "2", "3"]
    assert all(count > 0 for count in verrou["counted"].values()) and set(verrou["threads"].values()) == {1}
    assert verrou["instruction_set"] == manifest["machine"]["torch_cpu_capability"]
    assert manifest["route"] == "verrou" and not (tmp_path / "r/verrou").exists()
    assert set(manifest["times"]["forward"]) == set(verrou["counted"])


def test_the_order_in_which_samples_end_changes_no_bit(tmp_path, monkeypatch):
    campaign(tmp_path / "a", POOLED, jobs=1)
    monkeypatch.setenv("STANDIN_FAULT", "slow:0")
    campaign(tmp_path / "b", POOLED, jobs=4)
    expect_equal(tmp_path / "a", tmp_path / "b")


def test_a_finished_run_is_not_run_again(tmp_path, started):
    campaign(tmp_path / "r")
    started.clear()
    campaign(tmp_path / "r")
    assert started == []
    with pytest.raises(InputError, match=r"holds another run: its mode is 'random', here it is 'nearness'"):
        campaign(tmp_path / "r", mode="nearness")


DEATHS = {
    "die:2": r"Sample 2 ended with exit code 7, . finished runs stay; its log .*2.log ends:(?s:.*)\n    and this is "
    "the last line$",
    "killed:2": r"Sample 2 was ended by the signal SIGKILL, . finished runs stay; its log",
    "silent:2": r"Sample 2 ended without its layers, . finished runs stay; its log",
    "full:2": r"The disk of .*verrou is full: . finished runs stay there; free some space and give the same command",
    "full:reference": r"The disk of .*verrou is full: 0 finished runs",
}


@pytest.mark.parametrize("fault", DEATHS)
def test_a_dead_sample_is_one_sentence_and_the_rest_is_kept(tmp_path, monkeypatch, started, fault, fresh):
    if not (fresh / "r").exists():
        campaign(fresh / "r")
    started.clear()
    monkeypatch.setenv("STANDIN_FAULT", fault)
    with pytest.raises(InputError, match=DEATHS[fault]):
        campaign(tmp_path / "r", jobs=1)
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["status"] == "failed" and manifest["failures"]
    before = set(started)
    monkeypatch.delenv("STANDIN_FAULT")
    started.clear()
    campaign(tmp_path / "r", jobs=1)
    where = fault.partition(":")[2]
    assert set(started) == {"reference", "again", "0", "1", "2", "3"} - (before - {where})
    expect_equal(fresh / "r", tmp_path / "r")


PROOFS = {
    "uncounted:reference": r"^Not perturbed: Verrou counted no floating-point operation in the baseline. Let ",
    "uncounted:1": r"^Not perturbed: .* in sample 1\.",
    "without:0": r"^Not perturbed: .* in sample 0\.",
    "other_rounding:again": r"^Not repeatable: two runs that round to nearest differ, first in layer layers.0. Some",
    "other_instructions:1": r"^Not the same kernels: torch dispatched to OTHER in sample 1 and to \w+ in the baseline",
    "other_software:0": r"^Not the same software: torch is 0.0 in sample 0 and .* in the baseline\. Run",
}


@pytest.mark.parametrize("fault", PROOFS)
def test_a_proof_that_fails_fails_the_campaign(tmp_path, monkeypatch, started, fault):
    monkeypatch.setenv("STANDIN_FAULT", fault)
    with pytest.raises(InputError, match=PROOFS[fault]):
        campaign(tmp_path / "r", jobs=1)
    monkeypatch.delenv("STANDIN_FAULT")
    failed = set(started) & ({"reference", "again"} if "again" in fault else {fault.partition(":")[2]})
    started.clear()
    campaign(tmp_path / "r", jobs=1)  # what proved nothing is run again
    assert failed <= set(started)


def test_samples_of_one_seed_are_found_out(tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN_SEED", "5")
    with pytest.raises(InputError, match=r"^Not random: sample 0 and sample 1 have the same bits although"):
        campaign(tmp_path / "r")
    monkeypatch.delenv("STANDIN_SEED")
    campaign(tmp_path / "r")


def test_a_directed_mode_may_have_equal_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN_SEED", "5")
    found = campaign(tmp_path / "r", mode="upward")
    assert found["layers.0"].moments.m2.max() == 0


MODELS = {
    "threaded": (
        InputError,
        r"^Not one thread: torch had 2 in the (second )?baseline, and sums depend on",
    ),
    "raising_under_verrou": (InputError, r"exit code 4, .*ends:(?s:.*)\n    ValueError: not here$"),
    "unseeded": (InputError, r"ends:(?s:.*)\n    The model .* has other parameters in each process: let it load them"),
    "longer_under_verrou": (RunFailure, r"^Sample 0 did not run the layers of the baseline \(the first is :abs\)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_measured_is_one_sentence(tmp_path, name):
    threads = torch.get_num_threads()
    try:
        with pytest.raises(MODELS[name][0], match=MODELS[name][1]):
            campaign(tmp_path / "r", f"{HERE}:build_{name}", samples=2)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("file", ["1.safetensors", "1.json", "identity"])
def test_a_damaged_sample_is_repeated(tmp_path, monkeypatch, started, file, fresh):
    if not (fresh / "r").exists():
        campaign(fresh / "r")
    monkeypatch.setenv("STANDIN_FAULT", "die:3")
    with pytest.raises(InputError):
        campaign(tmp_path / "r", jobs=1)
    path = tmp_path / "r/verrou" / ("1.json" if file == "identity" else file)
    if file == "identity":  # a sample of another campaign, whole
        path.write_text(json.dumps({**json.loads(path.read_text()), "identity": "other"}))
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    monkeypatch.delenv("STANDIN_FAULT")
    started.clear()
    told = Told()
    campaign(tmp_path / "r", observer=told)
    assert sorted(started) == ["1", "3"]
    assert any(sentence.startswith("Finished before, but repeated: sample 1: ") for sentence in told.sentences)
    expect_equal(fresh / "r", tmp_path / "r")


def test_the_command_line_ends_with_code_2_and_no_traceback(tmp_path, monkeypatch, capsys):
    arguments = ["run", LINE, "x.npy", "--out", str(tmp_path / "r"), "--backend", "verrou",
                 "--samples", "2", "--jobs", "2"]  # fmt: skip
    monkeypatch.setenv("STANDIN_FAULT", "die:1")
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert "Sample 1 ended with exit code 7" in errors and "this is the last line" in errors
    assert "Traceback" not in errors
    monkeypatch.delenv("STANDIN_FAULT")
    assert main([*arguments, "--fail-below", "60"]) == 1
    assert "under Verrou" not in capsys.readouterr().err


def test_a_campaign_under_verrou_needs_names_and_a_directory(tmp_path):
    with pytest.raises(InputError, match=r"Expected the model and the metrics as package.module:function"):
        mcaprobe.run(models.build_line(), models.line(), out=tmp_path / "r", verrou=Verrou())
    with pytest.raises(InputError, match=r"needs a run directory"):
        mcaprobe.run(LINE, models.line(), verrou=Verrou())


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path, monkeypatch, started):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10, 10, 5))
    with pytest.raises(InputError, match=r"would write up to .*has 5 B free: choose another --out"):
        campaign(tmp_path / "r")
    assert started == [] and not (tmp_path / "r").exists()


def test_jobs_that_do_not_fit_the_memory_are_refused_before_the_start(tmp_path, started):
    with pytest.raises(InputError, match=r"3 processes under Verrou would take .* are allowed: raise --memory, lower"):
        campaign(tmp_path / "r", jobs=3, memory="2GiB")
    assert started == [] and not (tmp_path / "r").exists()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, standin):
    """A campaign whose processes are the driver's own."""
    folder = tmp_path_factory.mktemp("alone")
    np.save(folder / "x.npy", models.line().numpy())
    return folder


def on_workers(folder: Path, out: Path, **more):
    options = {"samples": 3, "block": 2, "keep_moments": "*", "metrics": [f"{HERE}:mean_of"], **more}
    return mcaprobe.run(LINE, folder / "x.npy", out=out, verrou=Verrou(), **options)


@pytest.mark.parametrize("executor", [faults.Gathering, faults.Losing, faults.Repeating, faults.Lying])
def test_runs_that_are_units_of_an_executor_give_the_same_bits(alone, tmp_path, executor):
    if not (alone / "run").exists():
        on_workers(alone, alone / "run")
    workers = executor()
    on_workers(alone, tmp_path / "r", executor=workers)
    assert set(workers.runs) == {-2, -1, 0, 1, 2}
    expect_equal(alone / "run", tmp_path / "r")
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == sorted(p.name for p in (alone / "run").iterdir())


def test_a_run_that_dies_on_its_worker_is_named_and_runs_again_alone(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("STANDIN_FAULT", "killed:1")
    executor = faults.Gathering()
    with pytest.raises(RunFailure, match=r"1 of 5 units failed(?s:.*)sample 1: .* by the signal SIGKILL"):
        on_workers(alone, tmp_path / "r", executor=executor)
    assert executor.runs.count(1) == 3 and sorted(set(executor.runs)) == [-2, -1, 0, 1, 2]
    assert json.loads((tmp_path / "r/manifest.json").read_text())["failures"][0].startswith("sample 1: ")
    monkeypatch.delenv("STANDIN_FAULT")
    again = faults.Gathering()
    on_workers(alone, tmp_path / "r", executor=again)
    assert again.runs == [1]


def test_a_model_that_raises_on_its_worker_is_not_tried_again(alone, tmp_path):
    executor = faults.Gathering()
    with pytest.raises(RunFailure, match="ValueError: not here"):
        mcaprobe.run(f"{HERE}:build_raising_under_verrou", alone / "x.npy", samples=2, out=tmp_path / "r",
                     verrou=Verrou(), executor=executor)  # fmt: skip
    assert sorted(executor.runs) == [-2, -1, 0, 1]


def test_a_worker_without_the_launcher_says_so(alone, tmp_path):
    with pytest.raises(RunFailure, match=r"On .*: The engine apptainer-that-is-not-here cannot be used"):
        mcaprobe.run(LINE, alone / "x.npy", samples=2, out=tmp_path / "r", executor=faults.Gathering(),
                     verrou=Verrou(launcher="apptainer", engine="apptainer-that-is-not-here"))  # fmt: skip


def test_jobs_and_workers_are_not_both_given(alone, tmp_path):
    with pytest.raises(InputError, match="with the executor Gathering give --workers"):
        mcaprobe.run(LINE, alone / "x.npy", samples=2, out=tmp_path / "r", executor=faults.Gathering(),
                     verrou=Verrou(jobs=2))  # fmt: skip
