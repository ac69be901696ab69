"""`python -m analyses run NAME`: an experiment of the paper, its rows as CSV, each finished part kept."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from analyses import provenance, trained
from analyses.brains import TEST
from analyses.experiments.counting import Row, Tables, merge
from analyses.experiments.studies import STUDIES, Options, Part
from analyses.kept import Kept
from analyses.metrics import DICE_DEFINITION, DICE_OPTIONS, F1_OPTIONS, PSNR_OPTIONS, SSIM_OPTIONS
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import cells, write_json, write_table
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


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("run", help="an experiment of the paper", description=__doc__)
    p.add_argument("name", choices=list(STUDIES), help="which one")
    p.add_argument("--plane", choices=list(AXES), default="axial", help="of the brain slices (%(default)s)")
    p.add_argument("--subjects", nargs="+", default=list(TEST), help="labelled brains (%(default)s)")
    p.add_argument("--every", type=int, default=1, help="take every so manieth slice of a brain (%(default)s)")
    p.add_argument("--images", type=int, default=10_000, help="images to classify, at most (%(default)s)")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (%(default)s)")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the CSV files (%(default)s)")
    p.set_defaults(function=run)


def options_of(args: argparse.Namespace) -> Options:
    """Return what was asked for; InputError where a number or a subject makes no sense."""
    for name in ("every", "images", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"Expected --{name} of at least 1, got {getattr(args, name)}.")
    wrong = [name for name in args.subjects if name not in TEST]
    if wrong:
        raise InputError(f"Expected subjects among {', '.join(TEST)}, which no network has seen, got {wrong[0]}.")
    return Options(args.plane, tuple(args.subjects), args.every, args.images)


def run(args: argparse.Namespace) -> int:
    """Compute what is not kept, write a CSV for each table and one manifest, print what was written."""
    options = options_of(args)
    torch.set_num_threads(args.threads)
    console, start = Console(), time.monotonic()
    tables: Tables = {}
    networks: dict[str, Any] = {}
    with console.status("") as status:
        for part in STUDIES[args.name](options):
            identity = _identity(part)
            networks[part.checkpoint.name] = {"sha256": identity["checkpoint"], "training": training_of(part)}
            kept = Kept(args.name, identity)
            found = kept.part(part.key, lambda part=part: part.compute(status.update))  # type: ignore[misc]
            merge(tables, found)
            console.print(f"{provenance.now()} {part.key}: {sum(map(len, found.values()))} rows")
    manifest = provenance.stamp() | {
        "experiment": args.name, "options": asdict(options), "threads": args.threads, "about": ABOUT,
        "metrics": METRICS, "networks": networks, "seconds": round(time.monotonic() - start, 1),
        "tables": {name: len(rows) for name, rows in tables.items()},
    }  # fmt: skip
    suffix = "" if options.plane == "axial" else f"_{options.plane}"
    for name, rows in tables.items():
        write_table(args.out / f"{args.name}_{name}{suffix}.csv", _texts(rows))
    write_json(args.out / f"{args.name}{suffix}.json", manifest)
    console.print(f"{args.out / args.name}{suffix}*.csv, .json: {sum(map(len, tables.values()))} rows.")
    return 0


def _identity(part: Part) -> dict[str, Any]:
    """Return all that a part's rows depend on, the version of the code included."""
    return {"checkpoint": provenance.sha256(part.checkpoint), "commit": provenance.commit(), **part.identity}


def training_of(part: Part) -> Mapping[str, Any] | None:
    """Return how the network of a part came about, None for a published one."""
    return trained.record(part.checkpoint) if part.checkpoint.suffix == ".safetensors" else None


def _texts(rows: Sequence[Row]) -> list[dict[str, str]]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [cells(row, columns) for row in rows]
