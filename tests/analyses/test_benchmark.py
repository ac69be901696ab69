"""Does the cost table hold what it says? No time is asserted: a tiny network, one or two repetitions, faked ratios."""

import csv
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyses.__main__ import main
from analyses.benchmarks import campaign, operators, processes
from analyses.benchmarks.cases import OPERATORS as CASES
from analyses.benchmarks.cases import Operator, convolution
from analyses.benchmarks.config import Config, cores
from analyses.benchmarks.peak import Job, peak, work
from analyses.benchmarks.published import PUBLISHED
from analyses.benchmarks.rows import (
    CAMPAIGN,
    COLUMNS,
    ELSEWHERE,
    FORMATS,
    FULL_WIDTH,
    MEMORY,
    ONE_LAYER,
    OPERATORS,
    PASS,
    PERTURBED,
    STOCK,
    VARIANTS,
    WHOLE,
    Row,
    elsewhere,
    judged,
    merged,
    unsteady,
)
from analyses.benchmarks.timing import Times, interleave
from analyses.commands import benchmark
from analyses.figures.benchmark import markdown, number
from analyses.results_files import cells
from mcaprobe import kernels
from mcaprobe.errors import RunFailure

OPERATOR = "convolution 2->3 3x3 at 8x8"
SMALL = "tests.mcaprobe.small_models:Small"
compiled = pytest.mark.skipif(kernels.library() is None, reason="the route exact needs the compiled kernels")


def fake_peak(job: Job) -> dict[str, Any]:
    """Stand in for a process: sizes that tell the jobs apart."""
    size = {"": 100, "exact": 300, "model": 400}[job.route]
    return {"seconds": float(size), "peak": size * 2**20, "layers": 7 if job.route else 0}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A network of a few thousand operations, two operators, no process."""
    x = tmp_path_factory.mktemp("input") / "x.npy"
    np.save(x, np.random.default_rng(0).standard_normal((1, 1, 16, 16)).astype(np.float32))
    small = (convolution(2, 3, 3, 8), Operator("matmul 4x4x4", torch.mm, ((4, 4), (4, 4))))
    return Config(
        repetitions=2, threads=(1,), samples=3, network=SMALL, x=str(x), subject="small", operators=small, seconds=0.0,
        peak=fake_peak,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(config: Config) -> list[Row]:
    """The rows of the campaign and of the operators, really timed."""
    return campaign.run(config) + operators.run(config)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], list[dict[str, str]]]:
    """Read the rows that the command wrote."""

    def rows() -> list[dict[str, str]]:
        with (tmp_path / "cost.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return rows


def fake(part: str, ratio: float, threads: int = 1) -> Callable[..., list[Row]]:
    """Return a measurement that has this ratio for the route exact and the mode random, 1 for the others."""
    kinds, subject = ((PASS, ONE_LAYER, WHOLE), "small") if part == CAMPAIGN else ((PERTURBED,), OPERATOR)
    base: Row = {"part": part, "subject": subject, "threads": threads, "samples": 1, "unit": "s"}
    once = {"median": 1.0, "low": 1.0, "high": 1.0}
    rows: list[Row] = [base | once | {"what": STOCK, "format": name} for name in FORMATS]
    for route, mode in VARIANTS:
        x = ratio if (route, mode) == ("exact", "random") else 1.0
        cells = dict.fromkeys(("median", "low", "high", "ratio", "ratio_low", "ratio_high", "ratio_contiguous"), x)
        about = {"route": route, "mode": mode, "baseline": "channels_last"}
        rows += [base | cells | about | {"what": what} for what in kinds]
    return lambda config, progress: rows


@compiled
def test_a_campaign_has_its_rows_and_ratios_are_quotients_of_the_medians(measured: list[Row]) -> None:
    rows = [row for row in measured if row["part"] == CAMPAIGN]
    assert all(set(row) <= set(COLUMNS) for row in rows)
    stock = {row["format"]: row for row in rows if row["what"] == STOCK}
    assert set(stock) == {"channels_last", "contiguous"}
    found = [row for row in rows if row["what"] != STOCK]
    labels = {(what, *variant) for what in (PASS, ONE_LAYER, WHOLE) for variant in VARIANTS}
    assert {(row["what"], row["route"], row["mode"]) for row in found} == labels and len(found) == len(labels)
    for row in found:
        assert row["baseline"] == "channels_last" and row["threads"] == 1 and row["samples"] == 3
        assert row["ratio"] == pytest.approx(row["median"] / stock["channels_last"]["median"])
        assert row["ratio_contiguous"] == pytest.approx(row["median"] / stock["contiguous"]["median"])
        assert row["low"] <= row["median"] <= row["high"] and row["repetitions"] == 2
        assert row["layers"] == 1 if row["what"] == ONE_LAYER else row["layers"] > 3


@compiled
def test_operators_are_held_against_the_faster_format(measured: list[Row]) -> None:
    for name in (OPERATOR, "matmul 4x4x4"):
        here = [row for row in measured if row["subject"] == name]
        stock = {row["format"]: row["median"] for row in here if row["what"] == STOCK}
        assert set(stock) == ({"channels_last", "contiguous"} if name == OPERATOR else {"contiguous"})
        perturbed = [row for row in here if row["what"] == PERTURBED]
        assert [(row["route"], row["mode"]) for row in perturbed] == list(VARIANTS)
        for row in perturbed:
            assert stock[row["baseline"]] == min(stock.values())
            assert row["ratio"] == pytest.approx(row["median"] / min(stock.values()))


def test_the_operators_of_the_table_run_on_their_shapes() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        if case.shapes[0][0] == 1:  # the same call on a corner of the planes
            operands = [t[..., :16, :16] if t.ndim == 4 and t.shape[0] == 1 else t for t in case.operands(0)]
            case.call(*operands)


def test_stock_is_timed_before_between_and_after() -> None:
    order: list[str] = []
    found = interleave(
        {"stock": lambda: order.append("stock")},
        [{"a": lambda: order.append("a"), "b": lambda: order.append("b")}, {"c": lambda: order.append("c")}],
        2,
    )
    assert order == ["stock", "a", "b", "stock", "c", "stock"] * 2
    assert [len(found["stock"].turns[0]), len(found["a"].turns[0]), len(found["a"].turns)] == [3, 1, 2]


def test_ratios_are_of_all_times_and_of_each_repetition() -> None:
    stock, call = Times(((1.0, 3.0), (4.0, 2.0))), Times(((4.0,), (9.0,)))
    assert call.ratio(stock) == 6.5 / 2.5
    assert call.ratios(stock) == [2.0, 3.0]


def test_memory_and_the_whole_slice_are_measured_in_processes(config: Config) -> None:
    rows = processes.memory(config) + processes.whole_slice(config, samples=4)
    memory = {row["route"]: row for row in rows if row["part"] == MEMORY}
    assert {route: row["median"] for route, row in memory.items()} == {"": 100, "exact": 300, "model": 400}
    assert memory["exact"]["ratio"] == 3.0
    whole = {row["unit"]: row for row in rows if row["part"] == FULL_WIDTH and row["what"] == WHOLE}
    assert whole["s"]["ratio"] == whole["MiB"]["ratio"] == 3.0
    assert whole["s"]["layers"] == 7 and whole["s"]["samples"] == 4


def test_a_process_tells_its_peak(config: Config) -> None:
    found = peak(Job(SMALL, config.x, "model", "random", 2, 1))
    assert found["peak"] > 2**20 and found["seconds"] > 0 and found["layers"] > 3


def test_a_failing_process_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "Traceback\nWhy\n"))
    with pytest.raises(RunFailure, match=r"^The process of small \(stock\) ended: Why$"):
        peak(Job("small", "x", "", "", 1, 1))


@pytest.mark.parametrize("route", ["", "model"])
def test_a_job_counts_the_layers_of_a_campaign(route: str, config: Config) -> None:
    found = work(Job(SMALL, config.x, route, "random" if route else "", 2, 1, folder=True))
    assert (found["layers"] > 3) == bool(route) and found["peak"] > 2**20


def test_the_full_width_network_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b = processes.full_width(), processes.full_width()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.classifier.conv.weight, b.classifier.conv.weight)
    assert a.classifier.conv.weight.shape == (79, 71, 1, 1) and a.slices == 7 and not a.training


@pytest.mark.parametrize(
    ("part", "variant", "most"),
    [
        (CAMPAIGN, ("exact", "random"), 5.0),
        (CAMPAIGN, ("exact", "nearness"), 12.0),
        (CAMPAIGN, ("model", "random"), 5.0),
        (OPERATORS, ("exact", "random"), 3.5),
    ],
)
def test_a_ratio_is_judged_by_its_bound(part: str, variant: tuple[str, str], most: float) -> None:
    what = PASS if part == CAMPAIGN else PERTURBED
    row = fake(part, 1.0)(None, None)[-1] | {"what": what, "route": variant[0], "mode": variant[1]}
    assert judged(row | {"ratio": most})["met"] is True
    missed = judged(row | {"ratio": most + 0.01})
    assert missed["met"] is False and missed["bound"] == most
    assert "met" not in judged(row | {"what": WHOLE, "subject": "add"})


@pytest.mark.parametrize(("ratio", "code"), [(3.4, 0), (9.0, 1)])
def test_a_missed_bound_is_exit_code_1(
    ratio: float, code: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(benchmark.MEASURES, OPERATORS, fake(OPERATORS, ratio))
    assert benchmark.report(replace(config, parts=[OPERATORS]), tmp_path / "cost.csv") == code
    assert ("NOT MET: convolution 2->3 3x3 at 8x8, exact random, 1 threads: 9.00 > 3.5" in capsys.readouterr().out) == (
        code == 1
    )


def test_rows_that_are_not_measured_stay_with_their_date(
    config: Config, tmp_path: Path, read: Callable[[], list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cost.csv"
    monkeypatch.setitem(benchmark.MEASURES, CAMPAIGN, fake(CAMPAIGN, 2.0))
    assert benchmark.report(replace(config, parts=[CAMPAIGN, FULL_WIDTH]), out) == 0
    first = json.loads(out.with_suffix(".json").read_text())["measured"]
    whole = [row for row in read() if row["part"] == FULL_WIDTH]
    assert len(whole) == 4
    monkeypatch.setattr("analyses.provenance.now", lambda: "later")
    monkeypatch.setitem(benchmark.MEASURES, CAMPAIGN, fake(CAMPAIGN, 3.0))
    assert benchmark.report(replace(config, parts=[CAMPAIGN]), out) == 0
    rows, second = read(), json.loads(out.with_suffix(".json").read_text())["measured"]
    assert [row for row in rows if row["part"] == FULL_WIDTH] == whole
    assert next(row["ratio"] for row in rows if row["what"] == PASS) == "3"
    assert second["full-width, 1 threads"] == first["full-width, 1 threads"]
    assert second["campaign, 1 threads"]["date"] == "later"
    assert {"machine", "versions", "commit", "kernels", "cores", "command"} <= second["campaign, 1 threads"].keys()
    assert sum(row["part"] == ELSEWHERE for row in rows) == len(PUBLISHED)


def test_stock_that_was_disturbed_is_named() -> None:
    rows = fake(CAMPAIGN, 2.0)(None, None)
    assert unsteady(rows) == []
    assert unsteady([rows[0] | {"high": 1.6}, *rows[1:]]) == [rows[0] | {"high": 1.6}]


def test_another_number_of_threads_does_not_replace_rows() -> None:
    one, two = ([cells(row, COLUMNS) for row in fake(CAMPAIGN, 2.0, threads)(None, None)] for threads in (1, 2))
    assert merged(two, one) == one + two
    assert merged(one + two, two) == one + two


def test_what_others_measured_carries_its_source() -> None:
    for row in elsewhere():
        assert row["source"].startswith(("measured for this project, not in this run:", "published: "))
        assert 0 < row["ratio_low"] <= row["ratio_high"] and "median" not in row
    assert {p.tool.split(",")[0] for p in PUBLISHED} == {"Verrou", "PRISM"}


@compiled
def test_markdown_states_every_part_from_the_rows_of_the_csv(config: Config, measured: list[Row]) -> None:
    texts = [cells(judged(r), COLUMNS) for r in [*measured, *processes.memory(config), *processes.whole_slice(config)]]
    texts += [cells(row, COLUMNS) for row in elsewhere()]
    lines = markdown(texts)
    row = next(r for r in texts if r["what"] == PASS and (r["route"], r["mode"]) == ("exact", "random"))
    bound = f"bound 5: {'met' if float(row['ratio']) <= 5 else 'NOT MET'}"
    assert any(f"**{number(row['ratio'])}** (" in line and bound in line for line in lines)
    assert any(line.startswith("| convolution 2->3 3x3 at 8x8 |") for line in lines)
    assert any(line.startswith("| Verrou | MNIST net |  | 311 to 335 | published: ") for line in lines)
    assert lines.count("") == 4 and all(line.startswith("|") for line in lines if line)
    assert markdown([]) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--repetitions", "0"], "Expected --repetitions of at least 1, got 0."),
        (["--threads", "0"], f"Expected --threads between 1 and the {cores()} cores of this machine, got 0."),
        (["--parts", "campaign,speed"], "Expected --parts among campaign, operators, memory, full-width, got 'speed'."),
        (["--out", "x.txt"], "Expected --out to end in .csv, got x.txt."),
    ],
    ids=["repetitions", "threads", "parts", "out"],
)
def test_bad_options_are_one_sentence_and_code_2(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "campaign", *options]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_file_that_is_no_benchmark_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cost.csv").write_text("a,b\n1,2\n")
    assert main(["benchmark", "campaign", "--out", str(tmp_path / "cost.csv")]) == 2
    assert "to be an earlier benchmark with its manifest" in capsys.readouterr().err
