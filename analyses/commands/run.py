"""`python -m analyses run NAME`: an experiment of the paper, its rows as CSV, each finished part kept."""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from analyses import provenance, trained
from analyses.benchmarks.memory import keep_freed
from analyses.brains import TEST
from analyses.commands.printing import print_lines
from analyses.experiments.comparison.grown import grown, there
from analyses.experiments.comparison.learnings import LEARNINGS
from analyses.experiments.comparison.networks import entry
from analyses.experiments.comparison.rows import ABOUT as ABOUT_COMPARE
from analyses.experiments.counting import Row, Tables, merge
from analyses.experiments.goals import missed
from analyses.experiments.studies import STUDIES, SUMMARIES, TIMED_THREADS, Options, Part, config_of, trainings
from analyses.figures.timing import goal_lines
from analyses.kept import Kept
from analyses.metrics import DICE_DEFINITION, DICE_OPTIONS, F1_OPTIONS, PSNR_OPTIONS, SSIM_OPTIONS
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import suffix_of, texts, write_json, write_table
from mcaprobe.errors import InputError

METRICS = {
    "dice": {"name": "torchmetrics dice_score", "definition": DICE_DEFINITION, "options": DICE_OPTIONS},
    "psnr": {"name": "torchmetrics peak_signal_noise_ratio", "options": PSNR_OPTIONS},
    "ssim": {"name": "torchmetrics structural_similarity_index_measure", "options": SSIM_OPTIONS},
    "f1": {"name": "torchmetrics multiclass_f1_score", "options": F1_OPTIONS},
}
ABOUT = (
    "window_share: skipped windows over all (the paper's figure is mean_over_layers, the mean of the layers' shares); "
    "mac_share: multiply-accumulates of skipped windows over all; executed_share: those that the kernels made; filled: "
    "windows of constant background that got their known output; labels_changed: against torch's own network"
)
TIMING, COMPARE = "timing", "compare"
ABOUT_TIMING = (
    "load_before, date: of a row, when it was begun; seconds: wall clock of a volume from its voxels to its labels: "
    "cropping, the forward, argmax; the sum over the timed slices of the median of the repetitions, times "
    "brain_slices over slices_timed, and in the scope whole volume the seconds of one empty slice times empty_slices; "
    "scope whole volume, every slice: no sample, blocks of 16 slices alternating between the ways; stock: torch in "
    "channels last; batch: slices at once, the fewest of 1, 2 and 4 within 2 % of where stock is fastest; box: around "
    "the brain of the whole volume, at least 16 voxels away, on the grid of 16; speed_up: stock on all of the volume "
    "over the way, totals of all subjects; low, high: extremes of the subjects; executed_share: multiply-accumulates "
    "made, of stock's on all of the volume; ceiling: 1 / executed_share; labels_changed: on the timed slices, an "
    "empty one once, against stock; stock_changed: of stock itself, 2 slices at once or in contiguous layout, the "
    "larger one (in the scope every slice: contiguous, 0 where ours changed none); dice: mean over structures and "
    "subjects on the timed slices; profile: of one slice with brain on one thread, seconds of each of torch's "
    "operators without those that it calls, by torch.profiler; what is left of the wall clock is our kernels and "
    "Python"
)
EVERY = {TIMING: 36}  # slices of a brain


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("run", help="an experiment of the paper", description=__doc__)
    p.add_argument("name", choices=list(STUDIES), help="which one")
    p.add_argument("--plane", choices=list(AXES), default="axial", help="of the brain slices (%(default)s)")
    p.add_argument("--subjects", nargs="+", default=list(TEST), help="labelled brains (%(default)s)")
    p.add_argument("--every", type=int, help=f"take every so manieth slice of a brain (1; timing: {EVERY[TIMING]})")
    p.add_argument("--images", type=int, default=10_000, help="images to classify, at most (%(default)s)")
    p.add_argument("--threads", type=int, help="threads of torch (1; compare: 1 and 2; timing: both, no number)")
    p.add_argument("--repetitions", type=int, default=3, help="how often a slice or volume is timed (%(default)s)")
    p.add_argument("--filters", type=int, nargs="+", help="timing: widths of the network (as trained, and 71)")
    p.add_argument("--whole", type=int, default=1, help="timing: subjects timed on every slice as well (%(default)s)")
    p.add_argument("--steps", type=int, help="compare: steps that each network is trained for (its budget)")
    p.add_argument("--task", choices=list(LEARNINGS), default="heads", help="compare: what is learnt (%(default)s)")
    p.add_argument("--networks", nargs="+", default=[], metavar="ROW",
                   help="compare: rows of these networks, added to those that --out has (all)")  # fmt: skip
    p.add_argument("--untimed", action="store_true", help="compare: leave the wall clock out, on a busy machine")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the CSV files (%(default)s)")
    p.set_defaults(function=run)


def options_of(args: argparse.Namespace) -> Options:
    """Return what was asked for; InputError where a number, a subject or a network makes no sense."""
    for name in ("every", "images", "threads", "repetitions", "steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"Expected --{name} of at least 1, got {value}.")
    if args.whole < 0:
        raise InputError(f"Expected --whole of at least 0, got {args.whole}.")
    if args.name == TIMING and args.threads is not None:
        raise InputError(f"Expected no --threads for timing, which measures 1 and 2, got {args.threads}.")
    if args.networks and args.name != COMPARE:
        raise InputError(f"Expected --networks with {COMPARE} only, got {args.name}.")
    for name in args.networks:
        entry(name)
    wrong = [name for name in args.subjects if name not in TEST]
    if wrong:
        raise InputError(f"Expected subjects among {', '.join(TEST)}, which no network has seen, got {wrong[0]}.")
    both = args.name == TIMING or (args.name == COMPARE and args.threads is None)
    threads = TIMED_THREADS if both else (args.threads or 1,)
    every = args.every or EVERY.get(args.name, 1)
    filters = tuple(args.filters or ())
    return Options(
        args.plane, tuple(args.subjects), every, args.images, threads, args.repetitions, filters, args.whole,
        args.steps, args.task, tuple(args.networks), args.untimed,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compute what is not kept, write a CSV for each table and one manifest, print what was written.

    Returns:
        1 where the experiment has goals and one is missed, else 0.
    """
    options = options_of(args)
    torch.set_num_threads(options.threads[0])
    console, start = Console(), time.monotonic()
    suffix = f"_{options.task}" if args.name == COMPARE else suffix_of(options.plane)
    config = asdict(config_of(options)) if args.name == COMPARE else {}
    if options.networks:
        there(args.out, suffix, config)  # before hours of work
    clock = {"memory": keep_freed(), "load_before": _load()} if args.name == TIMING else {}
    tables: Tables = {}
    networks: dict[str, Any] = {}
    commits: dict[str, str] = {}
    with console.status("") as status:
        for part in STUDIES[args.name](options):
            identity = _identity(part)
            if part.checkpoint is not None:
                networks[part.checkpoint.name] = {"sha256": identity["checkpoint"], "training": training_of(part)}
            commits[part.key] = identity["commit"]
            kept = Kept(args.name, identity)
            found = kept.part(part.key, lambda part=part: part.compute(status.update))  # type: ignore[misc]
            merge(tables, found)
            console.print(f"{provenance.now()} {part.key}: {sum(map(len, found.values()))} rows")
    if args.name in SUMMARIES:
        tables |= SUMMARIES[args.name](tables)
    manifest = provenance.stamp() | {
        "experiment": args.name, "options": asdict(options), "threads": _one_or_all(options.threads), "about": ABOUT,
        "metrics": METRICS, "networks": networks, "seconds": round(time.monotonic() - start, 1),
        "tables": {name: len(rows) for name, rows in tables.items()},
    }  # fmt: skip
    if args.name == COMPARE:
        manifest |= {"about": ABOUT_COMPARE, "config": config, "parts": commits,
                     "load_after": _load(), "networks": trainings(options)}  # fmt: skip
    if clock:
        manifest |= clock | {"load_after": _load(), "about": ABOUT_TIMING}
    if options.networks:
        tables, manifest = grown(tables, manifest, args.out, suffix)
    for name, rows in ((name, rows) for name, rows in tables.items() if rows):
        write_table(args.out / f"{args.name}_{name}{suffix}.csv", texts(rows))
    write_json(args.out / f"{args.name}{suffix}.json", manifest)
    console.print(f"{args.out / args.name}{suffix}*.csv, .json: {sum(map(len, tables.values()))} rows.")
    return _judge(console, tables["summary"]) if args.name == TIMING else 0


def _judge(console: Console, rows: Sequence[Row]) -> int:
    print_lines(console, goal_lines(texts(rows)))
    judged, wrong = [row for row in rows if row["met"] is not None], missed(rows)
    console.print(f"{len(judged)} goals, {len(wrong)} missed")
    return 1 if wrong else 0


def _load() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


def _one_or_all(threads: Sequence[int]) -> int | list[int]:
    return threads[0] if len(threads) == 1 else list(threads)


def _identity(part: Part) -> dict[str, Any]:
    """Return all that a part's rows depend on, the version of the code included."""
    network = {} if part.checkpoint is None else {"checkpoint": provenance.sha256(part.checkpoint)}
    return {**network, "commit": provenance.commit(), **part.identity}


def training_of(part: Part) -> Mapping[str, Any] | None:
    """Return how the network of a part came about, None for a published one."""
    path = part.checkpoint
    return trained.record(path) if path is not None and path.suffix == ".safetensors" else None
