"""Does the benchmark of `mcaprobe plan` judge what it measured?"""

import csv
import json
import subprocess
import sys

import pytest

from analyses.__main__ import main
from analyses.benchmarks import plans
from analyses.benchmarks.plans import CASES, Case, measured, rows_of, watched
from mcaprobe.errors import RunFailure

TRUTH = {"seconds": 100.0, "memory": 4e9, "disk": 1e6}
GOOD = {"seconds": 124.0, "memory": 3.1e9, "disk": 1e6}


@pytest.mark.parametrize(
    ("forecast", "missed"),
    [(GOOD, []), (GOOD | {"seconds": 126.0}, ["seconds"]), (GOOD | {"memory": 2.9e9, "disk": 2e6}, ["memory", "disk"])],
    ids=["within", "too long", "too little, too much"],
)
def test_a_prediction_is_missed_where_it_is_a_quarter_off(forecast, missed):
    rows = rows_of(CASES[0], forecast, TRUTH, 1.0)
    assert [row["quantity"] for row in rows if not row["met"]] == missed
    assert rows[0]["error"] == pytest.approx(forecast["seconds"] / 100 - 1)


@pytest.mark.parametrize(("seconds", "code"), [(110.0, 0), (150.0, 1)])
def test_the_exit_code_tells_of_a_missed_prediction(tmp_path, monkeypatch, seconds, code):
    rows = rows_of(CASES[0], GOOD | {"seconds": seconds}, TRUTH, 1.0)
    monkeypatch.setattr(plans, "run", lambda progress: (rows, {"a case": {}}))
    out = tmp_path / "plan.csv"
    assert main(["benchmark", "plan", "--out", str(out)]) == code
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["met"] for row in found] == [str(code == 0), "True", "True"]
    manifest = json.loads(out.with_suffix(".json").read_text())
    assert manifest["machine"]["cores"] > 0 and manifest["forecasts"] == {"a case": {}}
    assert "| memory | 2956 MiB | 3815 MiB | -22% |" in out.with_suffix(".md").read_text()


def test_a_finished_case_is_kept_when_a_later_one_fails(tmp_path, monkeypatch):
    one, two, asked = Case("one", ("a",)), Case("two", ("b",)), []

    def forecast(case):
        asked.append(case.name)
        if case is two and asked.count("two") == 1:
            raise RunFailure("the second one failed")
        return GOOD | dict.fromkeys(("measured", "extrapolated", "shorts", "costs"), case.name), 2.0

    monkeypatch.setattr(plans, "predicted", forecast)
    monkeypatch.setattr(plans, "measured", lambda case: TRUTH)
    with pytest.raises(RunFailure, match="second one"):
        plans.run(cases=(one, two), folder=tmp_path)
    rows, said = plans.run(cases=(one, two), folder=tmp_path)
    assert asked == ["one", "two", "two"] and [row["case"] for row in rows] == ["one"] * 3 + ["two"] * 3
    assert said["two"]["measured"] == "two" and rows[0] == rows_of(one, GOOD, TRUTH, 2.0)[0]
    plans.forget((one, two), tmp_path)
    plans.run(cases=(one, two), folder=tmp_path)
    assert asked[3:] == ["one", "two"], "what is written is measured anew"


def test_the_memory_of_all_processes_is_summed():
    child = "import time; a = bytearray(60 << 20); time.sleep(2)"
    both = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    process = subprocess.Popen([sys.executable, "-c", both + "b = bytearray(60 << 20); p.wait()"], text=True)
    assert 120 * 2**20 < watched(process) < 220 * 2**20


def test_a_campaign_that_is_run_is_measured():
    found = measured(Case("tiny", ("tests.mcaprobe.small_models:build_small", "mni152", "--size", "16x16",
                                   "--samples", "2")))  # fmt: skip
    assert found["seconds"] > 0.5 and found["memory"] > 100 * 2**20 and found["disk"] > 10_000
