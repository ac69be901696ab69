"""Is the wall clock's bookkeeping right? No time is asserted: small brains and networks, a clock that is counted."""

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot

from analyses import kept, trained
from analyses.__main__ import main
from analyses.benchmarks import timing as clock
from analyses.brains import Brain
from analyses.experiments import goals, profiling, spared_work, studies, wall_clock, ways
from analyses.experiments.counting import BRAIN, WHOLE
from analyses.experiments.wall_clock import EVERY_SLICE, Config
from analyses.experiments.ways import BEST, BOX, EVERYTHING, METHODS, NO_EMPTY, VOLUMES, Way, box_of, segment
from analyses.figures import timing as figure
from analyses.methods import Method
from analyses.models.checkpoint import save_network
from analyses.preprocessing.planes import slices_of
from analyses.results_files import cells
from tests.analyses.test_experiments import SIZES, chosen, network, small_brain

QUICK = Config(every=9, repetitions=2)
BOTH = f"{BOX}, {NO_EMPTY}"


def brain(name: str = "1013") -> Brain:
    """The ball of the other experiments, far enough from one corner for a box."""
    found = small_brain(name)
    image, classes = (x.roll((-10, -10, -10), (0, 1, 2)) for x in (found.image, found.classes))
    return Brain(name, image, classes, found.affine)


@torch.inference_mode()
def changed(method: Method, batches: Sequence[Sequence[int]], box: ways.Box | None = None) -> int:
    """Return how many labels a method changes on slices of the brain: this network is not trained, and sees ties."""
    models = wall_clock.converted(network(), [None, method])
    total = 0
    for batch in batches:
        stock = segment(models[None], brain().image, "axial", batch)
        total += int((segment(models[method], brain().image, "axial", batch, box) != stock).sum())
    return total


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock whose calls take 1, 2, 3, ... seconds."""
    seconds = itertools.count(1)

    def counted(call: clock.Call) -> float:
        call()
        return float(next(seconds))

    monkeypatch.setattr(clock, "seconds_of", counted)
    monkeypatch.setattr(wall_clock, "seconds_of", counted)


def test_a_box_lies_on_the_grid_of_the_deepest_pooling_around_all_brain() -> None:
    image = brain().image
    rows, columns = box_of(image, "axial")
    inside = (slices_of(image, "axial") > 0).any(0)
    for part, seen in ((rows, inside.any(1)), (columns, inside.any(0))):
        assert part.start % 16 == 0 and part.stop % 16 == 0 and part.stop < 64
        at = torch.nonzero(seen).flatten()
        assert (part.start == 0 or int(at[0]) - part.start >= 16) and part.stop - int(at[-1]) > 16
    assert box_of(torch.zeros(32, 32, 32, dtype=torch.uint8), "coronal") == (slice(0, 32), slice(0, 32))


@torch.inference_mode()
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_outside_its_box_a_slice_is_background_and_inside_what_the_network_says_of_the_crop(plane: str) -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.stack([torch.zeros_like(x[:, 3]), torch.ones_like(x[:, 3])], 1)

    image, box = brain().image, (slice(16, 32), slice(0, 48))
    labels = segment(Spy(), image, plane, [20, 22], box)
    assert labels.shape == (2, 64, 64) and bool((labels[:, 16:32, :48] == 1).all()) and int(labels.sum()) == 2 * 16 * 48
    planes = slices_of(image, plane)
    for i, k in enumerate((20, 22)):
        assert torch.equal(seen[0][i], planes[k - 3 : k + 4, 16:32, :48].float() / 255)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_ways_have_names_of_their_own() -> None:
    found = {(row["method"], row["volume"]) for row in (way.columns for way in ways.ways())}
    assert len(found) == len(METHODS) * len(VOLUMES) == 24
    assert set(goals.LEAST) < {ways.name_of(method) for method in METHODS}
    assert Way(Method(None, 0.5, uniform=True)).columns["threshold"] is None


def test_a_volume_takes_what_its_slices_take_times_those_they_stand_for(ticking: None) -> None:
    plan = wall_clock.plan_of(brain(), "axial", 9)
    assert len(plan.timed) == 3 and plan.brain + len(plan.empty) == 64 and plan.scale == plan.brain / 3
    config = Config(methods=(None, BEST), every=9, repetitions=2)
    rows = wall_clock.subject(network(), brain(), config, 1)
    # Calls in the order stock, ours, stock cropped, ours cropped, rotated by one each slice, twice a slice.
    turns = {"stock": [(1, 5), (12, 16), (19, 23), (26, 30)], "ours": [(2, 6), (9, 13), (20, 24), (27, 31)]}
    for name, method in (("stock", "stock"), ("ours", ways.name_of(BEST))):
        *inside, empty = [sum(pair) / 2 for pair in turns[name]]
        (row,) = chosen(rows, method=method, volume=EVERYTHING, scope=BRAIN)
        assert row["seconds"] == pytest.approx(plan.scale * sum(inside))
        assert row["seconds_fastest"] == pytest.approx(plan.scale * sum(min(pair) for pair in turns[name][:3]))
        (whole,) = chosen(rows, method=method, volume=EVERYTHING, scope=WHOLE)
        assert whole["seconds"] == pytest.approx(row["seconds"] + len(plan.empty) * empty)
        # The search for empty slices is done once: calls 34 and 36, after that for the box.
        (skipping,) = chosen(rows, method=method, volume=NO_EMPTY, scope=WHOLE)
        assert skipping["seconds"] == pytest.approx(row["seconds"] + 35)
        (boxed,) = chosen(rows, method=method, volume=BOX, scope=BRAIN)
        (both,) = chosen(rows, method=method, volume=BOTH, scope=WHOLE)
        assert both["seconds"] == pytest.approx(boxed["seconds"] + 35)
    assert {row["slices_timed"] for row in rows} == {3} and {row["threads"] for row in rows} == {1}


def test_several_slices_at_once_share_their_seconds(ticking: None) -> None:
    rows = wall_clock.subject(network(), brain(), Config(methods=(None,), every=9, repetitions=1), 2)
    plan = wall_clock.plan_of(brain(), "axial", 9)
    # Groups of 2 and of 1, then 2 empty ones; each call is followed by its cropped one, or comes after it.
    brain_slices, whole = (chosen(rows, volume=EVERYTHING, scope=scope)[0] for scope in (BRAIN, WHOLE))
    assert brain_slices["seconds"] == pytest.approx(plan.scale * (1 + 4)) and brain_slices["batch"] == 2
    assert whole["seconds"] - brain_slices["seconds"] == pytest.approx(len(plan.empty) * 5 / 2)


def test_every_slice_is_timed_in_blocks_that_alternate(ticking: None) -> None:
    rows = wall_clock.every_slice(network(), brain(), QUICK, 3)
    stock, ours = (row["seconds"] for row in rows)
    assert stock == 1 + 4 + 5 + 8 and ours == 2 + 3 + 6 + 7  # four blocks of 16 slices
    assert {row["scope"] for row in rows} == {EVERY_SLICE} and {row["labels"] for row in rows} == {64**3}
    expected = changed(BEST, [range(i, min(i + 3, j + 16)) for j in range(0, 64, 16) for i in range(j, j + 16, 3)])
    assert [row["labels_changed"] for row in rows] == [0, expected]


@pytest.mark.parametrize(
    ("per_slice", "fastest"), [((1.0, 0.7, 0.9), 2), ((1.0, 0.99, 0.985), 1), ((3.0, 2.0, 1.0), 4)]
)
def test_stock_gets_as_many_slices_at_once_as_are_fastest(
    monkeypatch: pytest.MonkeyPatch, per_slice: tuple[float, ...], fastest: int
) -> None:
    seconds = dict(zip(wall_clock.BATCHES, per_slice, strict=True))
    monkeypatch.setattr(wall_clock, "seconds_of", lambda call: seconds[len(call.args[3])] * len(call.args[3]))
    assert wall_clock.fastest_batch(network(), brain(), QUICK) == fastest


def test_timed_slices_are_the_middle_ones_of_all_with_brain() -> None:
    every = wall_clock.plan_of(brain(), "axial", 1)
    assert every.timed == list(range(every.timed[0], every.timed[0] + every.brain)) and every.scale == 1
    assert wall_clock.plan_of(brain(), "axial", 9).timed == every.timed[4::9]
    assert wall_clock.plan_of(brain(), "axial", 1000).timed == [every.timed[every.brain // 2]]


@pytest.fixture(scope="module")
def work() -> list[dict[str, object]]:
    return spared_work.subject(network(), brain(), QUICK)


def test_executed_work_is_that_of_the_slices_and_of_the_empty_ones(work: list[dict[str, object]]) -> None:
    plan = wall_clock.plan_of(brain(), "axial", 9)

    def share(method: str, volume: str, scope: str) -> float:
        (row,) = chosen(work, method=method, volume=volume, scope=scope)
        return float(row["executed_share"])  # type: ignore[arg-type]

    rows, columns = box_of(brain().image, "axial")
    area = (rows.stop - rows.start) * (columns.stop - columns.start) / 64**2
    assert area < 1
    for scope in (BRAIN, WHOLE):
        assert share("stock", EVERYTHING, scope) == 1 and share("stock", BOX, scope) == pytest.approx(area)
        assert share("conservative, uniform windows", EVERYTHING, scope) < share("conservative", EVERYTHING, scope) < 1
    assert share("stock", NO_EMPTY, WHOLE) == pytest.approx(plan.brain / 64)
    assert share("conservative", NO_EMPTY, BRAIN) == share("conservative", EVERYTHING, BRAIN)


def test_changed_labels_are_counted_against_stock_on_all_of_the_volume(work: list[dict[str, object]]) -> None:
    plan = wall_clock.plan_of(brain(), "axial", 9)
    for row in work:
        assert row["labels"] == 64**2 * (3 if row["scope"] == BRAIN else 4)
    for volume, box in ((EVERYTHING, None), (BOX, box_of(brain().image, "axial"))):
        (row,) = chosen(work, method="conservative", volume=volume, scope=BRAIN)
        assert row["labels_changed"] == changed(METHODS[1], [[i] for i in plan.timed], box)
    assert {row["method"] for row in work if row["method"] in spared_work.ITSELF} == set(spared_work.ITSELF)
    stock = chosen(work, method="stock", volume=EVERYTHING, scope=BRAIN)[0]
    assert 0 <= stock["dice"] <= 1  # type: ignore[operator]


def test_a_flipped_label_is_seen() -> None:
    plan = wall_clock.plan_of(brain(), "axial", 9)
    stock = [torch.zeros(64, 64, dtype=torch.uint8) for _ in range(4)]
    ours = [x.clone() for x in stock]
    ours[1][3, 3], ours[3][5, 5] = 2, 1  # the last one is empty
    slices = [*plan.timed, plan.empty[0]]
    counts = {
        scope: spared_work._labels(ours, stock, brain(), "axial", slices, plan, scope) for scope in (BRAIN, WHOLE)
    }
    assert [counts[scope]["labels_changed"] for scope in (BRAIN, WHOLE)] == [1, 2]


def test_shares_of_a_profile_add_up_to_the_wall_clock() -> None:
    rows = profiling.subject(network(), brain(), QUICK)
    for method in ("stock", ways.name_of(BEST)):
        here = chosen(rows, method=method)
        assert sum(row["share"] for row in here) == pytest.approx(1)  # type: ignore[misc]
        assert [row["operator"] for row in here[-2:]] == [profiling.REST, profiling.OUTSIDE]


def faked(method: str, scope: str, seconds: float, changed: int = 0, dice: float = 0.8) -> tuple[dict, dict]:  # type: ignore[type-arg]
    about = {"network": "n", "subject": "a", "method": method, "volume": EVERYTHING, "scope": scope}
    work = about | {"executed_share": 0.5, "labels": 100, "labels_changed": changed, "dice": dice}
    return about | {"threads": 1, "slices_timed": 3, "seconds": seconds}, work


@pytest.mark.parametrize(
    ("method", "scope", "seconds", "changed", "dice", "met"),
    [
        ("conservative", BRAIN, 10 / 1.6, 2, 0.8, True),
        ("conservative", BRAIN, 10 / 1.59, 0, 0.8, False),
        ("conservative", WHOLE, 10 / 1.6, 0, 0.8, False),
        ("conservative", BRAIN, 1.0, 3, 0.8, False),  # stock itself changes 2
        ("uniform windows", WHOLE, 10 / 3, 0, 0.8, True),
        ("hybrid, uniform windows", BRAIN, 5.0, 50, 0.7951, True),
        ("hybrid", BRAIN, 5.0, 50, 0.7949, False),
    ],
)  # fmt: skip
def test_a_goal_is_met_by_speed_and_labels(
    method: str, scope: str, seconds: float, changed: int, dice: float, met: bool
) -> None:
    pairs = [faked("stock", scope, 10.0), faked(method, scope, seconds, changed, dice)]
    itself = [faked(name, scope, 0, n)[1] for name, n in zip(spared_work.ITSELF, (0, 2), strict=True)]
    rows = goals.summary({"times": [a for a, _ in pairs], "work": [*(b for _, b in pairs), *itself]})["summary"]
    stock, ours = rows
    assert stock["goal"] is None and stock["met"] is None and stock["speed_up"] == 1
    assert ours["met"] is met and ours["ceiling"] == 2 and ours["stock_changed"] == 2
    assert goals.missed(rows) == ([] if met else [ours])
    line = figure.goal_lines([cells(row, list(ours)) for row in rows])[-1]
    assert line.endswith("| met |") if met else "NOT MET" in line


def test_a_speed_up_is_that_of_all_subjects_together() -> None:
    times, work = [], []
    itself = dict.fromkeys(spared_work.ITSELF, 0.0)
    for subject, stock, ours in (("a", 10.0, 5.0), ("b", 30.0, 10.0)):
        for method, seconds in ({"stock": stock, "conservative": ours} | itself).items():
            a, b = faked(method, BRAIN, seconds)
            times += [a | {"subject": subject}] * (seconds > 0)
            work.append(b | {"subject": subject})
    row = goals.summary({"times": times, "work": work})["summary"][1]
    assert row["speed_up"] == pytest.approx(40 / 15) and (row["low"], row["high"]) == (2, 3) and row["labels"] == 200


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small trained network, and kept parts in a folder of the test's own."""
    monkeypatch.setattr(trained, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(kept.Kept.__init__, "__defaults__", (tmp_path / "kept",))
    monkeypatch.setattr(studies, "load_brain", brain)
    save_network(tmp_path / "cache" / "structures_axial.safetensors", network().state_dict(), SIZES, {"steps done": 3})
    return tmp_path


def arguments(out: Path, *more: str) -> list[str]:
    few = ["--subjects", "1013", "--every", "27", "--repetitions", "1", "--filters", "8", "10"]
    return ["run", "timing", *few, "--out", str(out), *more]


def test_a_killed_run_goes_on_and_its_figure_is_drawn(cache, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    out = cache / "results"

    class Killed(Exception):
        pass

    def kill(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(studies.profiling, "subject", kill)
        with pytest.raises(Killed):
            main(arguments(out))
    before = {path: path.stat().st_mtime_ns for path in (cache / "kept").rglob("*.json")}
    assert len(before) == 1 + 2 * len(studies.TIMED_THREADS)
    assert main(arguments(out)) in (0, 1), capsys.readouterr().err  # goals are for a large network
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = {path.stem.removeprefix("timing_") for path in out.glob("*.csv")}
    assert found == {"times", "work", "profile", "summary"}
    with (out / "timing_summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys(row["network"] for row in rows)
    assert list(names) == ["8 filters, trained here", "10 filters, widened from 8 (same function)"]
    assert len(rows) == len(names) * len(studies.TIMED_THREADS) * (24 * 2 + 2)
    manifest = json.loads((out / "timing.json").read_text())
    assert manifest["load_before"] and manifest["load_after"] and "median of the repetitions" in manifest["about"]
    capsys.readouterr()
    already = pyplot.get_fignums()
    assert main(["draw", "timing", "--results", str(out)]) == 0
    drawn = [Path(line).name for line in capsys.readouterr().out.split()]
    assert drawn == ["timing.png", "timing.md", "timing_ways.csv"]
    page = (out / "timing.md").read_text()
    assert page.count("without empty slices") >= 2 * 12 * len(names) and "aten::" in page
    assert pyplot.get_fignums() == already


def test_wrong_options_are_one_sentence(cache, capsys) -> None:  # type: ignore[no-untyped-def]
    for wrong, sentence in (
        (["--threads", "1"], "Expected no --threads for timing, which measures 1 and 2, got 1."),
        (["--repetitions", "0"], "Expected --repetitions of at least 1, got 0."),
        (["--every", "0"], "Expected --every of at least 1, got 0."),
        (["--whole", "-1"], "Expected --whole of at least 0, got -1."),
        (["--filters", "4"], "Expected at least the 8 filters of the trained network, got 4."),
        (["--plane", "coronal"], "`python -m analyses train structures --plane coronal` makes it."),
    ):
        assert main(["run", "timing", *wrong, "--out", str(cache)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: Expected ") and sentence in error and error.count("\n") == 1
