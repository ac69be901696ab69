"""Does a campaign on workers give the bits of one process, whatever becomes of its units?"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import mcaprobe
from mcaprobe.__main__ import main
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import Engine, parse_options
from mcaprobe.runs_on_engines import spans
from tests.mcaprobe import small_models as models
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.test_campaign import Watcher

MEAN = f"{models.HERE}:mean_of"


def run(out, *, model=faults.HERE, **more):
    options = {"samples": 7, "block": 2, "keep_moments": "conv2", "keep_samples": "conv2", "metrics": [MEAN]}
    return mcaprobe.run(model, models.image(), out=out, **options, **more)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(folder)
    return folder


@pytest.mark.parametrize("executor", [faults.Gathering, faults.Losing, faults.Repeating, faults.Lying, faults.Damaging])
@pytest.mark.parametrize("seed", [0, 1])
def test_units_that_are_reordered_lost_repeated_or_damaged_give_the_same_bits(alone, tmp_path, executor, seed):
    run(tmp_path / "run", executor=executor(seed))
    expect_equal(alone, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(p.name for p in alone.iterdir())


def test_each_loss_is_said(tmp_path):
    watcher = Watcher()
    run(tmp_path / "run", executor=faults.Losing(), observer=watcher)
    assert "samples 0-1 is given out again: its worker was lost (ConnectionError: node gone)." in watcher.said
    assert len([s for s in watcher.said if "given out again" in s]) == 2  # units 1 and 3 had left their results


def test_units_of_one_executor_run_at_once_in_threads_with_the_same_bits(alone, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        run(tmp_path / "run", executor=pool)
    expect_equal(alone, tmp_path / "run")


def test_chunks_are_merged_in_the_order_of_their_numbers_not_of_their_names(tmp_path):
    options = {"samples": 12, "block": 1, "keep_moments": "*"}
    mcaprobe.run(models.build_line(), models.line(), out=tmp_path / "alone", **options)
    mcaprobe.run(models.build_line(), models.line(), out=tmp_path / "run", executor=faults.Gathering(), **options)
    assert sorted(["2-2", "10-10"])[0] == "10-10"
    expect_equal(tmp_path / "alone", tmp_path / "run")


def test_a_module_that_has_no_name_goes_as_it_is(alone, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        run(tmp_path / "run", model=faults.build_faulty(), executor=pool)
    one, two = mcaprobe.load(alone), mcaprobe.load(tmp_path / "run")
    assert one.table() == two.table()


def test_the_rest_is_finished_and_exactly_what_failed_runs_again(alone, tmp_path):
    executor = faults.Failing()
    with pytest.raises(RunFailure, match=r"1 of 4 units failed(?s:.*)samples 2-3: its worker was lost.*node gone"):
        run(tmp_path / "run", executor=executor)
    assert executor.runs.count(1) == 3 and sorted(set(executor.runs)) == [0, 1, 2, 3]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert manifest["failures"] == ["samples 2-3: its worker was lost (ConnectionError: node gone)"]
    again = faults.Gathering()
    run(tmp_path / "run", executor=again)
    assert again.runs == [1]
    expect_equal(alone, tmp_path / "run")


def test_a_model_that_leaves_lockstep_runs_one_sample_at_a_time_on_workers_too(tmp_path):
    options = {"samples": 6, "block": 2, "keep_moments": "*"}
    mcaprobe.run(models.Asking().eval(), models.line(), out=tmp_path / "alone", **options)
    watcher = Watcher()
    with ThreadPoolExecutor(1) as pool:
        mcaprobe.run(models.Asking().eval(), models.line(), out=tmp_path / "run", executor=pool, observer=watcher,
                     chunk=4, **options)  # fmt: skip
    assert len([s for s in watcher.said if "one at a time" in s]) == 1
    expect_equal(tmp_path / "alone", tmp_path / "run")


def test_a_scheduler_that_refuses_is_told_with_its_own_words(tmp_path):
    with pytest.raises(RunFailure, match=r"4 of 4 units failed(?s:.*)Invalid account or account/partition"):
        run(tmp_path / "run", executor=faults.Refusing())


def test_a_model_that_raises_is_not_tried_again(tmp_path):
    class Worker(faults.Gathering):
        def one(self, future, function, work, unit):
            unit.job.model.calls = 100  # in the driver's own forwards it does not raise
            super().one(future, function, work, unit)

    executor, model = Worker(), models.Raising().eval()
    model.calls = -100
    with pytest.raises(RunFailure, match="no third layer today"):
        mcaprobe.run(model, models.line(), samples=4, block=2, out=tmp_path / "run", executor=executor)
    assert sorted(executor.runs) == [0, 1]


def test_a_worker_that_would_give_other_bits_is_refused(tmp_path, monkeypatch):
    class Elsewhere(faults.Gathering):
        def one(self, future, function, work, unit):
            with monkeypatch.context() as patch:
                patch.setattr("torch.__version__", "0.4")
                super().one(future, function, work, unit)

    with pytest.raises(RunFailure, match=r"would give other bits: its torch is '0.4'"):
        run(tmp_path / "run", executor=Elsewhere())


def test_a_worker_that_builds_another_model_is_refused(tmp_path):
    with pytest.raises(RunFailure, match=r"builds another model .*build_unseeded"):
        mcaprobe.run(f"{models.HERE}:build_unseeded", models.line(), samples=2, out=tmp_path / "run",
                     executor="processes", workers=1)  # fmt: skip


@pytest.mark.parametrize("kind", ["kill", "memory"])
def test_a_process_that_dies_loses_its_unit_only(alone, tmp_path, monkeypatch, kind):
    faults.plant(monkeypatch, tmp_path / "faults", kind, 1)
    watcher = Watcher()
    run(tmp_path / "run", executor="processes", workers=2, chunk=2, observer=watcher)
    expect_equal(alone, tmp_path / "run")
    lost = [s for s in watcher.said if "given out again" in s]
    assert len(lost) == 1 and ("out of memory" in lost[0] if kind == "memory" else "BrokenProcessPool" in lost[0])


def test_the_command_exits_with_3_names_the_failures_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/bin/mcaprobe", "run", "a model", "--out", "there"])
    mcaprobe.storage.write_tensors(tmp_path / "x.safetensors", {"x": models.image()})
    command = ["run", faults.HERE, str(tmp_path / "x.safetensors"), "--samples", "4", "--block", "2", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "alone")]) == 0
    faults.plant(monkeypatch, tmp_path / "faults", "122", 99)  # the quota is exceeded
    more = ["--out", str(tmp_path / "run"), "--executor", "processes", "--workers", "1", "--chunk", "2"]
    assert main([*command, *more]) == 3
    told = capsys.readouterr().err
    assert "2 of 2 units failed" in told and "samples 2-3: " in told and "quota" in told.lower()
    assert "Exactly these run again by: mcaprobe run 'a model' --out there" in told
    for name in (faults.DRIVER,):
        monkeypatch.delenv(name)
    assert main([*command, *more]) == 0
    expect_equal(tmp_path / "alone", tmp_path / "run")


BAD = {
    "unknown": ({"executor": "dusk"}, "executor among local, processes, dask, slurm, got 'dusk': the nearest are dask"),
    "no submit": ({"executor": 3}, "executor with submit\\(\\), got int"),
    "no workers": ({"executor": "processes", "workers": 0}, "at least 1 worker, got 0"),
    "no tries": ({"executor": "processes", "tries": 0}, "at least 1 try, got 0"),
    "two local": ({"workers": 2}, "local is this process: it has 1 worker, not 2"),
    "options": ({"executor": "processes", "executor_options": {"x": 1}}, "processes has no option x"),
    "no directory": ({"executor": "processes", "out": None}, "Workers of processes meet in a run directory: give out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(tmp_path, case):
    options, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        mcaprobe.run(models.build_line(), models.line(), **{"out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_options_are_read_as_python_reads_them():
    assert parse_options(["a=1", "b=x:y", "c=None", "d=tcp://h:1"]) == {"a": 1, "b": "x:y", "c": None, "d": "tcp://h:1"}
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError):
            parse_options(texts)


@pytest.mark.parametrize(("missing", "most", "expected"), [
    ([0, 1, 2, 4], 2, [(0, 2), (2, 1), (4, 1)]), ([], 3, []), ([3, 4, 5], 9, [(3, 3)]),
])  # fmt: skip
def test_units_are_spans_of_consecutive_blocks(missing, most, expected):
    assert spans(missing, most) == expected


def test_processes_share_the_memory_and_the_threads(monkeypatch):
    from mcaprobe.runs_on_engines import settings_of_workers
    from mcaprobe.settings import Settings

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    one = settings_of_workers(Settings(memory=2**30), Engine("processes", 4))
    assert (one.memory, one.threads) == (2**28, 2)
    assert settings_of_workers(Settings(memory=5), Engine("dask", 4)).memory == 5


def test_a_campaign_goes_on_with_another_executor(alone, tmp_path):
    with pytest.raises(RunFailure):
        run(tmp_path / "run", executor=faults.Failing())
    run(tmp_path / "run")
    expect_equal(alone, tmp_path / "run")
