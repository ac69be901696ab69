"""`python -m analyses draw NAME`: the figures and tables of an experiment, from its committed rows, without a model."""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analyses.commands.validation_drawings import drawn
from analyses.experiments.comparison.answers import answers
from analyses.experiments.comparison.learnings import LEARNINGS
from analyses.experiments.counting import WHOLE
from analyses.experiments.ways import EVERYTHING
from analyses.figures import (
    against_paper,
    brains,
    compare,
    compare_tables,
    formats,
    sizes,
    thresholds,
    timing,
    tolerances,
)
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import page, read_table, suffix_of, texts, write_table, write_text
from mcaprobe.errors import InputError
from mcaprobe.products import save_figure

Rows = list[dict[str, str]]
DPI = 110


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("draw", help="the figures of an experiment, from its rows", description=__doc__)
    p.add_argument("name", choices=list(DRAWINGS), help="which experiment")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows and figures (%(default)s)")
    p.set_defaults(function=draw)


def read(folder: Path, name: str) -> Rows:
    """Return the rows of a table; InputError with the command that makes it where it is not there."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise InputError(f"Expected rows at {path}: `python -m analyses run {name.split('_')[0]}` makes them.")
    return read_table(path)


def footer_of(folder: Path, name: str, words: str) -> str:
    """Return what every figure says below: n, threads, machine, versions, date."""
    manifest = json.loads((folder / f"{name}.json").read_text())
    machine = manifest["machine"]
    counts = manifest["threads"] if isinstance(manifest["threads"], list) else [manifest["threads"]]
    threads = f"{' and '.join(map(str, counts))} thread{'' if counts == [1] else 's'}"
    where = f"{machine['processor']}, {threads}, torch {manifest['versions']['torch']}"
    return f"{words} {where}, {manifest['date'][:10]}. Rows: {name}*.csv."


def draw(args: argparse.Namespace) -> int:
    """Write every figure and page of the experiment beside its rows."""
    for path, made in DRAWINGS[args.name](args.results):
        write(path, made)
        print(path)
    return 0


def write(path: Path, made: Figure | str | Rows) -> None:
    """Write a figure, a page, or the rows of a table."""
    if isinstance(made, Figure):
        save_figure(made, path, DPI)
    elif isinstance(made, str):
        write_text(path, made)
    else:
        write_table(path, made)


def _mnist(folder: Path) -> Iterator[tuple[Path, Any]]:
    rows = read(folder, "mnist_layers")
    footer = footer_of(folder, "mnist", f"Aggressive NaNs, t1 = 1; n = {rows[0]['images']} test images, float32.")
    yield folder / "mnist.png", thresholds.draw(rows, footer)
    yield folder / "mnist.md", page("MNIST, paper against here", "mnist_layers.csv", thresholds.markdown(rows))


def _xception(folder: Path) -> Iterator[tuple[Path, Any]]:
    rows = read(folder, "xception_layers")
    footer = footer_of(folder, "xception", "Aggressive NaNs, t1 = 1, approach A, float32.")
    yield folder / "xception.png", tolerances.draw(rows, footer)
    title = "Xception's structure and SqueezeNet over the tolerance"
    yield folder / "xception.md", page(title, "xception_layers.csv", tolerances.markdown(rows))


def _precision(folder: Path) -> Iterator[tuple[Path, Any]]:
    rows = read(folder, "precision_layers")
    footer = footer_of(folder, "precision", f"Aggressive NaNs, t1 = 1; n = {int(rows[0]['images']):,} test images.")
    yield folder / "precision.png", formats.draw(rows, footer)
    title = "Accuracy of the digit classifiers by format"
    yield folder / "precision.md", page(title, "precision_layers.csv", formats.markdown(rows))


def planes(folder: Path, name: str) -> list[str]:
    """Return the tables "paper against here" of each plane that there are rows of."""
    lines = []
    for plane in AXES:
        suffix = suffix_of(plane)
        if (folder / f"{name}_segmentation_layers{suffix}.csv").is_file():
            parts = []
            for network, kind in ((against_paper.FASTSURFER, "segmentation"), (against_paper.FONDUE, "denoising")):
                layers, slices = (read(folder, f"{name}_{kind}_{table}{suffix}") for table in ("layers", "slices"))
                parts.append((network, layers, slices))
            lines += [f"## {plane.capitalize()} slices", "", *against_paper.markdown(parts), ""]
    return lines[:-1]


def _brains(name: str, title: str, denoised: str) -> Callable[[Path], Iterator[tuple[Path, Any]]]:
    """Return what draws an experiment on brains; FONDUE saw fewer methods and slices, hence its own words."""

    def drawings(folder: Path) -> Iterator[tuple[Path, Any]]:
        layers, slices, dice = (read(folder, f"{name}_segmentation_{table}") for table in ("layers", "slices", "dice"))
        subjects = len({row["subject"] for row in layers})
        footer = footer_of(folder, name, _slices(subjects, slices))
        network = f"FastSurferVINN trained here, {title}"
        yield folder / f"{name}_skipped.png", brains.draw_skipped(layers, slices, network, footer)
        label = "Dice, mean over structures"
        yield folder / f"{name}_dice.png", brains.draw_scores(slices, "dice", label, network, footer)
        methods = ["torch", *dict.fromkeys(brains.name_of(r) for r in dice if r.get("threshold") == "0.5")]
        yield folder / f"{name}_structures.png", brains.draw_structures(dice, methods[:4], network, footer)
        layers, slices = (read(folder, f"{name}_denoising_{table}") for table in ("layers", "slices"))
        words = f"{title[0].upper()}{title[1:]}, paper against here"
        yield folder / f"{name}.md", page(words, f"{name}_segmentation_layers.csv", planes(folder, name))
        network, footer = f"FONDUE trained here, {denoised}", footer_of(folder, name, _slices(subjects, slices))
        yield folder / f"{name}_denoising_skipped.png", brains.draw_skipped(layers, slices, network, footer)
        yield folder / f"{name}_psnr.png", brains.draw_scores(slices, "psnr", "PSNR, dB", network, footer)

    return drawings


def _slices(subjects: int, slices: Rows) -> str:
    count = len({(row["subject"], row["slice"]) for row in slices})
    return f"n = {subjects} brains, {count} axial slices with brain; means over subjects."


def _timing(folder: Path) -> Iterator[tuple[Path, Any]]:
    rows, profile = read(folder, "timing_summary"), read(folder, "timing_profile")
    brains_of = max(int(row["subjects"]) for row in rows)
    words = f"Totals of n = {brains_of} brains, whiskers: lowest and highest brain; torch in channels last."
    yield folder / "timing.png", timing.draw(rows, footer_of(folder, "timing", words))
    title = "Wall clock end to end: torch's own network and ours"
    yield folder / "timing.md", page(title, "timing_summary.csv", timing.markdown(rows, profile))
    yield folder / "timing_ways.csv", _clock(rows)


def _clock(rows: Rows) -> Rows:
    """Return the rows of the widest network on all of the volume as `mcaprobe report --rows` reads them."""
    network = rows[-1]["network"]
    whole = [row for row in rows if row["network"] == network and row["scope"] == WHOLE and row["volume"] == EVERYTHING]
    return [
        {"way": row["method"], "network": network, "subjects": row["subjects"]}
        | {name: row[name] for name in ("threads", "seconds", "speed_up", "low", "high")}
        for row in whole
    ]


def _compare(folder: Path) -> Iterator[tuple[Path, Any]]:
    tasks = [task for task in LEARNINGS if (folder / f"compare_rows_{task}.csv").is_file()]
    for task in tasks or list(LEARNINGS)[:1]:
        tables = ("rows", "times", "dice", "bits")
        rows, times, dice, bits = (read(folder, f"compare_{table}_{task}") for table in tables)
        answered = texts(answers(rows, times, dice, bits))
        yield folder / f"compare_answers_{task}.csv", answered
        probed = next(row for row in rows if row["samples"])
        name = LEARNINGS[task].task.name
        words = (
            f"{name[0].upper()}{name[1:]}, n = {rows[0]['subjects']} subjects; bits: {probed['probed']} inputs, "
            f"n = {probed['samples']} samples, mode random, emulated."
        )
        yield folder / f"compare_{task}.png", compare.draw(rows, times, footer_of(folder, f"compare_{task}", words))
        title = f"The ways to be small, side by side: {name}"
        lines = compare_tables.markdown(rows, times, dice, answered)
        yield folder / f"compare_{task}.md", page(title, f"compare_rows_{task}.csv", lines)


def _sizes(folder: Path) -> Iterator[tuple[Path, Any]]:
    title = "What the papers of the other systems say of size, and what their descriptions give"
    yield folder / "sizes.md", page(title, "sizes_rows.csv", sizes.markdown(read(folder, "sizes_rows")))


DRAWINGS: dict[str, Callable[[Path], Iterator[tuple[Path, Any]]]] = {
    "mnist": _mnist,
    "xception": _xception,
    "precision": _precision,
    "timing": _timing,
    "compare": _compare,
    "sizes": _sizes,
    "conservative": _brains("conservative", "conservative NaNs", "conservative NaNs"),
    "aggressive": _brains("aggressive", "aggressive and hybrid NaNs", "aggressive NaNs"),
    "validation": partial(drawn, command="validate"),
    "calibration": partial(drawn, command="calibrate"),
}
