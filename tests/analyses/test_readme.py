"""What the README states is what the committed results say."""

import csv
import json
import re
from pathlib import Path

from analyses.commands.draw import planes
from analyses.experiments.comparison.answers import answers
from analyses.experiments.comparison.networks import CONSERVATIVE, STOCK, UNIFORM
from analyses.figures import (
    benchmark,
    compare_tables,
    formats,
    nan_benchmark,
    noninferiority,
    skipping,
    thresholds,
    timing,
    tolerances,
    verrou,
)  # fmt: skip
from analyses.figures.fidelity import markdown
from analyses.results_files import texts

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "analyses" / "results"


def read(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_fidelity_table_is_that_of_the_committed_rows() -> None:
    for line in markdown(read("fidelity.csv"), "exact") + markdown(read("fidelity.csv"), "model"):
        assert line in README, line


def test_the_cost_tables_are_those_of_the_committed_rows() -> None:
    for line in benchmark.markdown(read("campaign_cost.csv")):
        assert line in README, line


def test_the_speed_tables_are_those_of_the_committed_rows() -> None:
    rows = read("nan_conv.csv")
    for line in [*nan_benchmark.short(rows), *skipping.short(read("skipping.csv"))]:
        assert line in README, line
    assert nan_benchmark.bounds_sentence(rows) in " ".join(README.split())
    assert nan_benchmark.pooling_sentence(read("nan_pool.csv")) in " ".join(README.split())


def test_the_pages_of_tables_are_drawn_from_the_rows_beside_them() -> None:
    for name, draw in (("nan_conv", nan_benchmark.markdown), ("nan_pool", nan_benchmark.markdown),
                       ("skipping", skipping.markdown), ("xception", tolerances.markdown),
                       ("precision", formats.markdown)):  # fmt: skip
        page = (RESULTS / f"{name}.md").read_text().splitlines()
        source = next(path for path in (RESULTS / f"{name}.csv", RESULTS / f"{name}_layers.csv") if path.is_file())
        assert [line for line in page if line.startswith("|")] == [
            line for line in draw(read(source.name)) if line.startswith("|")
        ]


def test_the_dice_of_the_readme_are_those_of_the_committed_manifest() -> None:
    summary = json.loads((RESULTS / "tissue_dice.json").read_text())["summary"]
    for row in summary:
        if row["region"] == "whole" and row["class"] != "background":
            text = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})".replace("0.", ".")
            assert text in README, text


def test_every_picture_that_the_readme_shows_is_there() -> None:
    for path in re.findall(r"!\[[^]]*]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_every_command_of_the_readme_is_one_that_exists() -> None:
    from analyses.__main__ import COMMANDS

    known = {command.__name__.rsplit(".", 1)[1] for command in COMMANDS}
    assert set(re.findall(r"python -m analyses (\w+)", README)) <= known


def test_the_paragraph_on_the_papers_subject_states_the_committed_shares() -> None:
    rows = [r for r in read("unseen.csv") if r["input"].startswith("CoRR") and r["region"] == "background"]

    def percent(layers: list[str], column: str) -> str:
        shares = [100 * float(next(r[column] for r in rows if r["layer"] == layer)) for layer in layers]
        *before, last = [f"{s:.0f}" if s >= 0.95 else f"{s:.1f}".replace("0.", ".") for s in shares]
        return f"{', '.join(before)} and {last} %"

    text = " ".join(README.split())
    decoders = ["decode4", "decode3", "decode2", "decode1"]
    assert percent([f"encode{i}.maxpool.indices" for i in (1, 2, 3, 4)], "index_change_rate") in text
    for column in ("share_noise", "share_snr_below_1", "share_zero"):
        assert percent([f"{d}.unpool" for d in decoders], column) in text
    assert percent([f"{d}.conv0" for d in decoders], "share_noise") in text


def test_what_verrou_says_of_the_emulator_is_in_the_committed_rows() -> None:
    runs = json.loads((RESULTS / "verrou_demo.json").read_text())["runs"]
    seconds = runs["A"]["seconds"], runs["B"]["seconds"]
    assert verrou.sentence(read("verrou_demo.csv"), read("emulator_seeds.csv"), seconds) in " ".join(README.split())


def test_the_accuracies_of_mnist_are_those_of_the_committed_rows() -> None:
    rows = read("mnist_layers.csv")
    totals = [row for row in rows if row["layer"] == "total"]

    def accuracies(network: str, fill: str) -> list[float]:
        return [float(row["accuracy"]) for row in totals if row["network"] == network and row.get("fill") == fill]

    learnt = " / ".join(f"{a:.3f}".lstrip("0") for a in accuracies("mnist_nan", "mean"))
    assert learnt in README
    plain = accuracies("mnist", "mean") + accuracies("mnist", "max_normal")
    before = accuracies("mnist, pooling before ReLU", "mean")
    assert f".{round(100 * min(plain)):02d} to .{round(100 * max(plain))} at every threshold" in README
    assert f".{round(100 * min(before))} to .{round(100 * max(before))} with approach A" in README
    (stock,) = (row for row in totals if row["network"] == "mnist" and row["method"] == "stock")
    assert f"(accuracy {float(stock['accuracy']):.4f})".replace("0.", ".") in README
    page = (RESULTS / "mnist.md").read_text().splitlines()
    assert [line for line in page if line.startswith("|")] == thresholds.markdown(rows)


def test_the_tables_of_the_brains_are_those_of_the_committed_rows() -> None:
    for name in ("conservative", "aggressive"):
        page = (RESULTS / f"{name}.md").read_text().splitlines()
        lines = [line for line in planes(RESULTS, name) if line.startswith("|")]
        assert lines == [line for line in page if line.startswith("|")]
        first = lines[: lines.index(lines[0], 1)] if lines.count(lines[0]) > 1 else lines
        assert all(line in README for line in first), name
        scores = noninferiority.markdown(read(f"{name}_noninferiority.csv"))
        page = (RESULTS / f"{name}_noninferiority.md").read_text().splitlines()
        assert [line for line in scores if line.startswith("|")] == [line for line in page if line.startswith("|")]


def test_what_the_text_says_of_the_brains_is_in_the_committed_rows() -> None:
    text = " ".join(README.split())
    slices = [row for row in read("conservative_segmentation_slices.csv") if row.get("threshold") == "0.5"]
    slices = [row for row in slices if row["method"] == "conservative" and row["uniform"] == "False"]
    changed, millions = sum(int(row["labels_changed"]) for row in slices), len(slices) * 256 * 256 / 1e6
    assert f"{changed} labels of {millions:.1f} million differ at t2 = .5" in text
    tests = [row for row in read("conservative_noninferiority.csv") if row["threshold"] == "0.5"]
    assert {row["verdict"] for row in tests} == {"non-inferior"} and "All 15 structures are non-inferior" in text
    mean = next(row for row in tests if row["structure"] == "mean over structures")
    assert f"mean over structures {float(mean['torch']):.3f})".replace("0.", ".") in text
    rows = [row for row in read("aggressive_noninferiority.csv") if row["method"] == "aggressive"]
    half = {row["structure"]: row for row in rows if row["threshold"] == "0.5"}
    undecided = [name for name, row in half.items() if row["verdict"] != "non-inferior"]
    assert undecided == ["fourth ventricle"] and "the fourth ventricle is undecided" in text
    worst = next(r for r in rows if r["structure"] == "cerebellar cortex" and r["threshold"] == "0.4")
    assert f"{float(worst['torch']):.3f} to {float(worst['dice']):.3f}".replace("0.", ".") in text


def test_the_wall_clock_is_that_of_the_committed_rows() -> None:
    rows = read("timing_summary.csv")
    for line in timing.short(rows):
        assert line in README, line
    page = (RESULTS / "timing.md").read_text().splitlines()
    drawn = timing.markdown(rows, read("timing_profile.csv"))
    assert [line for line in drawn if line.startswith("|")] == [line for line in page if line.startswith("|")]
    text = " ".join(README.split())
    every = [row for row in rows if row["scope"].endswith("every slice") and row["network"].startswith("71")]
    found = {row["threads"]: float(row["speed_up"]) for row in every if row["method"] != "stock"}
    assert f"{found['1']:.2f} times on 1 thread, {found['2']:.2f} on 2" in text


def test_the_accuracies_of_the_other_classifiers_are_those_of_the_committed_rows() -> None:
    text = " ".join(README.split())
    totals = [row for row in read("precision_layers.csv") if row["layer"] == "total"]

    def accuracy(network: str, form: str) -> float:
        found = [row for row in totals if (row["network"], row["format"], row.get("fill")) == (network, form, "mean")]
        return next(float(row["accuracy"]) for row in found if float(row["threshold"]) == 1)

    a, b, c = (f"{accuracy('mnist_nan', form):.3f}".lstrip("0") for form in ("float32", "bfloat16", "float16"))
    assert f"{a} in float32, {b} in bfloat16 and {c} in float16" in text
    assert {f"{accuracy('mnist', form):.2f}" for form in ("float32", "bfloat16", "float16")} == {"0.14"}
    rows = [row for row in read("xception_layers.csv") if row["layer"] == "total"]
    small = [row for row in rows if row["network"] == "separable"]
    ones = [row for row in small if row.get("threshold") == "1"]
    windows, macs = ([100 * float(row[name]) for row in ones] for name in ("window_share", "mac_share"))
    assert f"{min(windows):.1f} to {max(windows):.1f} % of the windows ({min(macs):.1f} to {max(macs):.1f} %" in text
    steps = [f"{float(row['accuracy']):.3f}".lstrip("0") for row in (small[0], ones[0], ones[-1])]
    assert f"from {steps[0]} to {steps[1]} to {steps[2]}" in text
    squeeze = [float(row["accuracy"]) for row in rows if row["network"] == "SqueezeNet"]
    assert f"({squeeze[0]:.3f} before, at most {max(squeeze[1:]):.3f} with NaNs".replace("0.", ".") in text


def section(title: str) -> list[str]:
    """Return the lines of a section of the README."""
    lines = README.splitlines()
    start = lines.index(f"## {title}")
    ends = (i for i, line in enumerate(lines) if i > start and line.startswith("## "))
    return lines[start : next(ends)]


def test_the_validation_that_the_readme_states_is_that_of_the_rows() -> None:
    page = (RESULTS / "validation_structures.md").read_text().splitlines()
    stated = [line for line in section("Do the NaNs land where the digits are lost?") if line.startswith("| ")]
    assert len(stated) > 40 and set(stated) <= set(page)
    text = " ".join(section("Do the NaNs land where the digits are lost?"))
    windows = {(r["method"], r["layer"]): r for r in read("validation_structures_windows_summary.csv")}
    row = windows["conservative", "all layers"]
    assert row["predicted"] == row["both"] and f"{int(row['predicted']):,} windows" in text
    inside = [
        r for r in read("validation_structures_places_summary.csv")
        if (r["layer"], r["method"], r["zone"]) == ("decode1.unpool", "conservative", "inside")
        and r["criterion"].startswith("below")
    ]  # fmt: skip
    elements, true, nan = (sum(int(r[name]) for r in inside) for name in ("elements", "true", "predicted"))
    assert f"{true} of {elements:,} elements" in text and f"and {nan} are NaN" in text


def test_the_calibration_that_the_readme_states_is_that_of_the_rows() -> None:
    areas = [float(r["auroc"]) for r in read("calibration_structures_areas.csv")
             if (r["kind"], r["max_ties"]) == ("absolute", "1")]  # fmt: skip
    text = " ".join(section("Do the NaNs land where the digits are lost?"))
    by_layer = [sum(areas[i::4]) / len(areas[i::4]) for i in range(4)]  # four poolings a slice
    low, high = (f"{value:.4f}".lstrip("0") for value in (min(by_layer), max(by_layer)))
    assert f"of {low} to {high}" in text
    judged = [r for r in read("calibration_structures_held_out.csv") if r["layer"] == "encode4.maxpool"]
    means = {name: [float(r["mcc"]) for r in judged if r["setting"] == name] for name in ("held out", "paper")}
    held_out, paper = (f"{sum(values) / len(values):.4f}".lstrip("0") for values in means.values())
    assert f"({held_out} for {paper} in the deepest)" in text
    assert {(r["kind"], float(r["value"]), r["max_ties"]) for r in read("calibration_structures_held_out.csv")
            if r["setting"] != "paper"} == {("absolute", 1e-6, "1")}  # fmt: skip


PRUNED = "magnitude pruning, fine-tuned"
INSIDE = "bits of the logits where the image is not 0"
TOGETHER, MULTIPLIED = "speed-up together", "speed-ups alone, multiplied"
QUOTED = [
    (UNIFORM, PRUNED, "Dice", ""), (UNIFORM, "magnitude pruning", "Dice", ""),
    *((name, STOCK, "speed-up", threads) for name in (PRUNED, UNIFORM) for threads in "12"),
    *((f"{name} + {CONSERVATIVE}", STOCK, quantity, "1") for name in ("half width", PRUNED, "Sauron")
      for quantity in (TOGETHER, MULTIPLIED)),
    *((f"{name} + {CONSERVATIVE}", STOCK, "work together over multiplied", "1") for name in ("half width", PRUNED)),
    *((name, STOCK, INSIDE, "") for name in ("FasterFusion, fused", PRUNED, "Sauron", "E2ENet, sparse", "E2ENet, dense",
                                             "plain U-Net, instance norm", "NaN, aggressive", CONSERVATIVE)),
    (CONSERVATIVE, STOCK, "bits of the logits", ""),
]  # fmt: skip


def test_the_comparison_is_that_of_the_committed_rows() -> None:
    rows, times, dice, bits = (read(f"compare_{table}_brains.csv") for table in ("rows", "times", "dice", "bits"))
    for line in compare_tables.short(rows, times):
        assert line in README, line
    answered = read("compare_answers_brains.csv")
    assert answered == texts(answers(rows, times, dice, bits))
    about = ("network", "against", "quantity", "threads")
    said = {tuple(row[c] for c in about): compare_tables.said(row) for row in answered}
    section = " ".join(README.split("## Other ways to be small")[1].split("## Limits")[0].split())
    for asked in QUOTED:
        assert said[asked] in section, (asked, said[asked])
    for task, alone in (("brains", "plain U-Net, instance norm"), ("heads", "constant width")):
        dice = {row["network"]: f"{float(row['dice']):.3f}"[1:] for row in read(f"compare_rows_{task}.csv")}
        together = dice[f"{alone.removeprefix('plain U-Net, ')} + {CONSERVATIVE}"]
        assert f"from {dice[alone]} to {together}" in section
    missing = [100 * float(row["share_nan"]) for row in read("compare_layers_heads.csv")
               if (row["network"], row["layer"]) == (f"constant width + {CONSERVATIVE}", "up.0.unpool")]  # fmt: skip
    assert f"{min(missing):.1f} to {max(missing):.1f} % of its last unpooling".removeprefix("0") in section


def test_the_times_of_workers_are_those_of_the_committed_rows() -> None:
    text = " ".join(README.split())
    one, two, four = read("workers.csv")
    assert (one["workers"], two["workers"], four["workers"]) == ("1", "2", "4")
    seconds = [f"{float(row['seconds']):.1f} s with" for row in (one, two, four)]
    assert all(words in text for words in seconds) and f"({float(two['speed_up']):.2f} times as fast)" in text


def test_the_errors_of_plan_are_those_of_the_committed_rows() -> None:
    text, rows = " ".join(README.split()), read("plan.csv")

    def percent(quantity: str) -> list[float]:
        return [100 * float(row["error"]) for row in rows if row["quantity"] == quantity]

    time, memory, disk = percent("seconds"), percent("memory"), percent("disk")
    assert f"time {min(time):+.0f} to {max(time):+.0f} %, memory {min(memory):+.0f} to {max(memory):+.0f} %" in text
    assert "disk within 1 %" in text and max(map(abs, disk)) < 1 and max(map(abs, time + memory)) <= 25
    took = [float(row["measured"]) for row in rows if row["quantity"] == "seconds"]
    assert f"four campaigns of {min(took):.0f} to {max(took):.0f} seconds" in text and len(took) == 4
