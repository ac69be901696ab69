"""Is what `mcaprobe plan` says made of real short campaigns, of the campaign's own rules, and of right arithmetic?"""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import mcaprobe
from mcaprobe import calibration, forecast_verrou, forecasting, runs_on_engines
from mcaprobe.calibration import Calibration, Task, calibrate, in_processes
from mcaprobe.campaign import Campaign
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import Engine, ThisProcess
from mcaprobe.forecast import EVERY_UNIT, EVERY_WORKER_ONCE, Costs, Line, makespan
from mcaprobe.forecast_words import show_seconds
from mcaprobe.loading import load_input
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.outline import BY_CHUNKS, BY_PIECES, DIRECT, Outline, Unit, outline, sketches
from mcaprobe.planning import MALLOC, look
from mcaprobe.settings import Settings
from mcaprobe.short_runs import Short
from mcaprobe.verrou import Verrou
from tests.mcaprobe import small_models as models
from tests.mcaprobe.command_line import call
from tests.mcaprobe.test_whole_volumes import head as head
from tests.reference.schedule_twin import last_second

SMALL = f"{models.HERE}:build_small"


# arithmetic


@pytest.mark.parametrize(
    ("points", "fixed", "each"),
    [
        ([(3, 5.0), (6, 8.0)], 2.0, 1.0),
        ([(3, 5.0), (3, 7.0)], 6.0, 0.0),
        ([(3, 5.0)], 5.0, 0.0),
        ([(3, 5.0), (6, 4.0)], 4.0, 0.0),  # noise: the longer one was quicker
        ([(3, 1.0), (6, 4.0)], 0.0, 4 / 6),  # the fixed part would be negative
    ],
    ids=["a line", "one count", "one point", "falling", "below nothing"],
)
def test_a_cost_is_a_rising_line_that_is_nowhere_negative(points, fixed, each):
    line = Line.through(points)
    assert (line.fixed, line.each) == pytest.approx((fixed, each))
    assert line(20) == pytest.approx(fixed + 20 * each)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_last_unit_ends_when_a_clock_says_so(workers):
    generator = np.random.default_rng(workers)
    for count in (1, 2, 5, 16):
        units = [int(n) for n in generator.integers(1, 9, count)]
        assert makespan(units, workers) == last_second(units, workers)


COSTS = Costs(start=10, begin=2, unit=Line(1, 0.5), join=Line(3, 0.25), disk=Line(0, 1), part=0)


@pytest.mark.parametrize(
    ("workers", "starts", "crowding", "seconds"),
    [
        (1, None, 1.0, 10 + 2 + 5 * 3 + 3 + 1.25),
        (2, EVERY_WORKER_ONCE, 1.0, 10 + 2 + 10 + 3 * 3 + 3 + 1.25),  # five units on two workers: three waves
        (2, EVERY_UNIT, 1.0, 10 + 2 + 3 * (10 + 3) + 3 + 1.25),
        (5, EVERY_WORKER_ONCE, 2.0, 10 + 2 + 10 + 2 * 3 + 3 + 1.25),
        (100, EVERY_UNIT, 1.0, 10 + 2 + 10 + 3 + 3 + 1.25),
    ],
)
def test_the_time_is_that_of_starts_waves_and_what_follows(workers, starts, crowding, seconds):
    costs = replace(COSTS, crowding=crowding)
    assert costs.seconds([(1, 4)] * 5, 5, workers, starts) == pytest.approx(seconds)


def test_units_cost_by_their_rounds_and_what_follows_by_what_is_merged():
    few, more = Short(2, 3, 1, 4.0, 1.0, 1, 5.0, 1000, 10), Short(5, 6, 2, 7.0, 2.0, 4, 11.0, 1600, 80)
    planned = Outline(BY_PIECES, (Unit(4, 6),), 4, 1, 100, False)
    costs = Costs.of(Calibration(10, 2, 3, (few, more), planned, 3, (1, 1, 8, 8), 20, 40, 90, 0), crowding=1.5)
    assert (costs.start, costs.begin, costs.part, costs.crowding) == (15, 1.5, 20, 1.5)
    assert (costs.unit, costs.join, costs.disk) == (Line(1.0, 1.0), Line(3.0, 2.0), Line(800.0, 200.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90 s"), (150, "2.5 min"), (3600 * 5, "5 h"), (86400 * 12, "12 days"), (0.25, "0.25 s")]
)
def test_durations_are_said_in_the_largest_unit_that_leaves_two(seconds, text):
    assert show_seconds(seconds) == text


# the outline is what the campaign does


class Noting(ThisProcess):
    """Runs units where it is, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.units = []

    def submit(self, function, /, *args, **options):
        self.units.append(args[1])
        return super().submit(function, *args, **options)


def small_campaign(**settings) -> Campaign:
    model = load_model(SMALL)
    return Campaign(Settings(**settings), model, load_input(torch.rand(1, 1, 16, 16), model.module, {}), [])


@pytest.mark.parametrize(("samples", "workers"), [(7, 2), (9, 3), (4, 4), (12, 2)])
def test_units_are_those_that_a_campaign_gives_out(tmp_path, samples, workers):
    campaign = small_campaign(samples=samples, block=2, threads=1)
    engine = Engine(Noting(), workers)
    seen = look(campaign.model.module, campaign.input.tensor, ["*"])
    planned = outline(campaign.settings, engine, seen, None, tmp_path)
    campaign.run(tmp_path / "run", Observer(), engine=engine)
    blocks = campaign.settings.blocks()
    given = [sum(map(len, blocks[unit.first : unit.first + unit.count])) for unit in engine.kind.units]
    assert planned.way == BY_CHUNKS and planned.merged == len(blocks)
    assert [unit.rounds for unit in planned.units] == [n + 1 for n in given]


def test_pieces_to_a_unit_are_those_that_a_campaign_gives_out(head, tmp_path):
    engine = Engine(Noting(), 1)
    result = mcaprobe.run(SMALL, head, out=tmp_path / "run", slices="1:7", samples=2, executor=engine.kind, workers=1)
    seen = look(load_model(SMALL).module, torch.rand(1, 1, 12, 16), ["*"])
    planned = outline(Settings(samples=2, threads=1), engine, seen, 6, tmp_path)
    assert [unit.pieces for unit in planned.units] == [len(unit.numbers) for unit in engine.kind.units]
    assert planned.way == BY_PIECES and planned.merged == len(result.manifest["pieces"]["numbers"]) == 6


def test_one_process_with_room_writes_its_products_itself(tmp_path):
    campaign = small_campaign(samples=12, threads=4)
    seen = look(campaign.model.module, campaign.input.tensor, ["*"])
    planned = outline(campaign.settings, Engine(), seen, None, tmp_path)
    assert planned.way == DIRECT and planned.units == (Unit(1, 4),)  # 13 runs over 4 threads
    chunked = outline(replace(campaign.settings, chunk=5), Engine(), seen, None, tmp_path)
    assert chunked.way == BY_CHUNKS and chunked.units == (Unit(1, 2), Unit(1, 2), Unit(1, 1))
    assert chunked.memory < planned.memory


def planned_as(way: str, blocks: int, merged: int, alone: bool = False) -> Outline:
    return Outline(way, (Unit(1, 1),), merged, blocks, 0, alone)


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("samples", [2, 3, 20, 500])
@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize(("way", "unit"), [(DIRECT, None), (BY_PIECES, None), (BY_CHUNKS, 1), (BY_CHUNKS, 3)])
def test_short_campaigns_are_short_and_differ_in_their_passes(threads, samples, block, way, unit):
    settings = Settings(samples=samples, block=block, threads=threads)
    count = len(settings.blocks())
    planned = planned_as(way, min(unit or count, count), 9 if way == BY_PIECES else count)
    found = sketches(settings, planned)
    assert all(2 <= sketch.settings.samples <= samples for sketch in found)
    assert found[-1].settings.samples <= max(4 * threads + 6, 4 * block)
    whole = -(-(samples + 1) // threads)
    if way == DIRECT and whole > max(sketch.rounds for sketch in found):
        assert found[0].rounds < found[-1].rounds  # else there is no slope to go on by
    if way == BY_CHUNKS and count > 2 and samples > 20:
        merged = [-(-sketch.settings.samples // block) for sketch in found]
        assert merged[0] < merged[-1]
    if way == BY_PIECES:
        assert [sketch.pieces for sketch in found] == [1, 2]


# short campaigns are real


def task(tmp_path, **more) -> Task:
    base = Task(SMALL, torch.rand(1, 1, 16, 16), {}, None, None, (), Settings(samples=30, threads=1), Engine(),
                tmp_path / "short")  # fmt: skip
    return replace(base, **more)


def test_a_calibration_measures_each_phase_and_leaves_nothing(tmp_path):
    start = time.perf_counter()
    found = calibrate(task(tmp_path), time.time() - 5)
    whole = time.perf_counter() - start
    assert [(s.samples, s.rounds, s.merged) for s in found.shorts] == [(2, 3, 0), (5, 6, 0)]
    assert 5 <= found.start < 5 + whole and found.layers == 7 and found.shape == (1, 1, 16, 16)
    assert all(s.unit > 0 and s.join > 0 and s.begin > 0 and s.disk > 0 for s in found.shorts)
    assert sum(s.seconds for s in found.shorts) + found.loading + found.warming < whole
    assert list((tmp_path / "short").iterdir()) == []


@pytest.mark.parametrize("keep", [(), ("conv2",)], ids=["nothing kept", "activations kept"])
def test_the_disk_of_a_longer_run_is_predicted(tmp_path, keep):
    settings = Settings(samples=30, threads=1, keep_samples=keep)
    costs = Costs.of(calibrate(task(tmp_path, settings=settings), time.time()))
    mcaprobe.run(SMALL, torch.rand(1, 1, 16, 16), out=tmp_path / "run", samples=30, keep_samples=keep)
    disk = sum(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert costs.disk(30) == pytest.approx(disk, rel=0.1)


def test_the_disk_and_the_parts_of_a_volume_grow_with_its_pieces(head, tmp_path):
    found = calibrate(task(tmp_path, x=head, slices="1:7", settings=Settings(samples=6, threads=1)), time.time())
    costs = Costs.of(found)
    assert [(s.units, s.merged, s.rounds) for s in found.shorts] == [(1, 1, 3), (2, 2, 6)]
    mcaprobe.run(SMALL, head, out=tmp_path / "run", slices="1:7", samples=6)
    disk = sum(p.stat().st_size for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert costs.disk(6) == pytest.approx(disk, rel=0.25)
    assert found.shorts[1].parts == pytest.approx(2 * found.shorts[0].parts, rel=0.1) and costs.part > 0


def test_chunks_are_counted_and_merged(tmp_path):
    found = calibrate(task(tmp_path, engine=Engine("processes", 2)), time.time())
    assert found.planned.way == BY_CHUNKS and [u.rounds for u in found.planned.units] == [16, 16]
    assert [(s.units, s.merged) for s in found.shorts] == [(1, 1), (1, 2)]
    assert found.shorts[1].parts > found.shorts[0].parts > 0


def test_a_model_whose_samples_run_one_at_a_time_is_measured_so(tmp_path):
    asking = task(tmp_path, model=models.Asking().eval(), x=models.line(), settings=Settings(samples=4, threads=2))
    found = calibrate(asking, time.time())
    assert found.planned.alone and found.planned.way == BY_CHUNKS
    assert [u.rounds for u in found.planned.units] == [5]


def test_units_alone_are_measured_where_the_rest_is_not_asked_for(tmp_path):
    found = calibrate(task(tmp_path, joined=False), time.time())
    assert all(s.unit > 0 and s.join == 0 and s.disk == 0 for s in found.shorts)


# what is told


def made(tmp_path, monkeypatch, driver=150, **asked) -> forecasting.Forecast:
    """A forecast of a calibration that is made by hand: 20 s to start, 4 s a unit."""
    def found(given: Task, at_once: int) -> tuple[Calibration, float]:
        planned = Outline(DIRECT, (Unit(1, 11),), 0, 2, 100, False)
        if not given.engine.local:
            planned = Outline(BY_CHUNKS, (Unit(1, 6), Unit(1, 6)), 2, 1, 100, False)
        short = Short(5, 6, 1, 4.0, 1.0, planned.merged, 5.0, 1000, 10 * planned.merged)
        found = Calibration(18, 1, 1, (short,), planned, 3, (1, 1, 8, 8), 40, driver, 90, 10)
        return found, 1.5 if at_once > 1 else 1.0

    monkeypatch.setattr(forecasting, "in_processes", found)
    monkeypatch.setattr(forecasting.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(runs_on_engines.os, "sched_getaffinity", lambda _: {0, 1})
    return mcaprobe.plan(SMALL, "1x1x8x8", out=tmp_path / "run", **asked)


@pytest.mark.parametrize(
    ("asked", "seconds", "memory", "disk"),
    [
        ({}, 20 + 1 + 4 + 5, 100, 1000),
        ({"subjects": 3}, 3 * 30, 100, 3000),
        ({"workers": 2}, 20 + 1 + 20 + 1.5 * 4 + 5, 240, 1000),
        ({"workers": 2, "subjects": 5}, 3 * (20 + 1 + 1.5 * 4 + 5), 200, 5000),
        ({"workers": 9, "subjects": 3}, 3 * (20 + 1 + 20 + 4 + 5), 240, 3000),  # no more than the 2 units run at once
        ({"workers": 100, "subjects": 1001}, 11 * 30, 100 * 100, 1001_000),
    ],
    ids=["one", "one after another", "spread here", "whole subjects here", "spread elsewhere", "a cluster"],
)
def test_time_memory_and_disk_follow_from_workers_and_subjects(tmp_path, monkeypatch, asked, seconds, memory, disk):
    found = made(tmp_path, monkeypatch, **asked)
    assert (found.seconds, found.memory, found.disk) == (pytest.approx(seconds), memory, disk)
    assert found.seconds_of_thousand == pytest.approx(10 * (30 if not found.spread else 20 + 1 + 2 * 4 + 5))


def test_workers_and_what_puts_their_parts_together_are_not_at_their_peaks_at_once(tmp_path, monkeypatch):
    assert made(tmp_path, monkeypatch, driver=239, workers=2).memory == 2 * (90 + 10) + 40
    assert made(tmp_path, monkeypatch, driver=241, workers=2).memory == 241
    assert made(tmp_path, monkeypatch, driver=241).memory == 90 + 10, "one process does it all"


@pytest.mark.parametrize(("engine", "peak"), [(Engine("processes", 2), 60), (Engine(), 90)], ids=["units", "all of it"])
def test_the_peak_is_that_of_a_worker_which_does_what_the_planned_one_does(tmp_path, monkeypatch, engine, peak):
    def together(tasks: list[Task]) -> list[Calibration]:
        crowd = [] if tasks[0].joined else [(7.0, 50), (5.0, 60)]
        short = Short(5, 6, 1, 4.0, 1.0, 1, 5.0, 1000, 10)
        first = Calibration(18, 1, 1, (short,), Outline(DIRECT, (), 0, 2, 100, False), 3, (1, 1, 8, 8), 40, 80, 90, 10)
        return [replace(first, peak=b, shorts=(replace(short, unit=a),)) for a, b in crowd] or [first]

    monkeypatch.setattr(calibration, "_together", together)
    found, crowding = in_processes(task(tmp_path, engine=engine), 2)
    assert (found.peak, crowding) == (peak, 1.5)


def test_more_samples_at_once_add_what_they_keep_alive(tmp_path):
    wide = torch.rand(1, 1, 256, 256)
    few, more = (calibrate(task(tmp_path / str(n), x=wide, settings=Settings(samples=n, threads=1)), time.time())
                 for n in (5, 45))  # fmt: skip
    live = look(load_model(SMALL).module, wide, ["*"]).live
    assert few.growth == 0 and more.growth == pytest.approx(MALLOC * 40 * live, rel=0.02)
    assert few.idle < few.driver and few.idle < few.peak


def test_the_samples_that_a_confidence_needs_are_told(tmp_path, monkeypatch):
    found = made(tmp_path, monkeypatch)
    assert found.samples_needed == 59 and found.supported == pytest.approx(0.05 ** (1 / 10))
    assert "needs n = 59 samples" in str(found) and "1000 subjects on 100 such workers: 5 min" in str(found)
    assert made(tmp_path, monkeypatch, probability=0.99, confidence=0.9).samples_needed == 230


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"samples": 1}, "Expected at least 2 samples"),
        ({"subjects": 0}, "Expected at least 1 subject, got 0"),
        ({"workers": 0}, "Expected at least 1 worker, got 0"),
        ({"executor": "slrum", "workers": 2}, "the nearest are slurm"),
        ({"executor": "local", "workers": 2}, "it has 1 worker, not 2"),
        ({"probability": 1.5}, "Expected probability strictly between 0 and 1, got 1.5"),
        ({"verrou": Verrou(), "slices": "all"}, "no pieces, workers or executor"),
        ({"model": nn.Sequential(models.Model(lambda self, x: x + 1))}, "another process can make"),
    ],
)
def test_bad_input_is_a_sentence_before_anything_runs(options, sentence):
    with pytest.raises(InputError, match=sentence):
        mcaprobe.plan(options.pop("model", SMALL), "1x1x8x8", **options)


def test_a_process_that_dies_is_a_sentence(tmp_path):
    with pytest.raises(RunFailure, match="process that calibrates ended before its results"):
        in_processes(task(tmp_path, model=f"{models.HERE}:build_dying"), 1)


def test_the_command_prints_what_a_fresh_process_measured(capsys, tmp_path):
    code, output, errors = call(capsys, "plan", SMALL, "1x1x16x16", "--samples", "8", "--threads", "1", "--p", ".9",
                                "--out", tmp_path / "run", "--json")  # fmt: skip
    found = json.loads(output)
    assert code == 0 and found["exit_code"] == 0 and errors == ""
    assert found["samples_needed"] == 29 and not found["theoretical"] and len(found["shorts"]) == 2
    assert found["seconds"] > found["costs"]["start"] > 0 and found["memory"] > 50 * 2**20 and found["disk"] > 0
    assert list(tmp_path.iterdir()) == []


# Verrou


def test_without_verrou_the_time_is_a_published_ratio_and_said_so(monkeypatch):
    def nothing(options):
        raise InputError("Nothing here can run Verrou.")

    monkeypatch.setattr(forecast_verrou, "choose", nothing)
    monkeypatch.setattr(forecast_verrou, "_plain", lambda module, x: 0.5)
    found = mcaprobe.plan(SMALL, "1x1x8x8", samples=4, subjects=3, verrou=Verrou(jobs=2))
    assert found.theoretical and found.seconds == pytest.approx(3 * 3 * 206 * 0.5)  # six runs, two at once
    text = str(found)
    assert text.startswith("Theoretical") and "206 times a plain forward" in text and "arXiv 2605.25991" in text
    assert "nothing under Verrou: Nothing here can run Verrou." in text


def test_with_verrou_one_run_of_it_is_timed(monkeypatch):
    monkeypatch.setattr(forecast_verrou, "choose", lambda options: "native")
    monkeypatch.setattr(forecast_verrou._OneRun, "measure", lambda self, launcher: 7.0)
    found = mcaprobe.plan(SMALL, "1x1x8x8", samples=4, verrou=Verrou(jobs=4))
    assert not found.theoretical and found.seconds == 2 * 7.0
    assert "one run under Verrou (native)" in found.measured[0]
