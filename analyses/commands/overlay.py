"""`python -m analyses overlay`: the template's labels with and without NaNs, each voxel that differs in red."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from analyses import provenance, trained
from analyses.experiments.overlay import Config, Overlay, rows, run, template
from analyses.figures.overlay import draw
from analyses.models.checkpoint import read_tensors, write_tensors
from analyses.paths import CACHE, RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import cells, write_rows
from mcaprobe.errors import InputError
from mcaprobe.products import save_figure

COLUMNS = ("method", "structure", "voxels_torch", "differing", "lost", "gained")
DPI = 100
WORDS = (
    "n = 1 image, which the network never saw: its own errors are in every row. Shares are of the voxels that torch "
    "calls a structure. Image: ICBM152 2009a,\nMcConnell Brain Imaging Centre, Montreal Neurological Institute. "
    "FastSurferVINN trained here, {plane} slices, {machine}, {threads} threads, torch {torch}, {date}. Rows: "
    "overlay.csv."
)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("overlay", help="where NaNs change the labels of a head", description=__doc__)
    p.add_argument("--plane", choices=list(AXES), default="axial", help="of the slices (%(default)s)")
    p.add_argument("--every", type=int, default=1, help="take every so manieth slice (%(default)s)")
    p.add_argument("--threads", type=int, default=2, help="threads of torch (%(default)s)")
    p.add_argument("--labels", type=Path, default=CACHE / "overlay.safetensors", help="where the labels are kept")
    p.add_argument("--again", action="store_true", help="compute the labels also where they are kept")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder of rows and figure (%(default)s)")
    p.set_defaults(function=overlay)


def overlay(args: argparse.Namespace) -> int:
    """Compute the labels or take those that are kept; write rows, manifest and figure, print where they are."""
    for name in ("every", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"Expected --{name} of at least 1, got {getattr(args, name)}.")
    torch.set_num_threads(args.threads)
    console = Console()
    with console.status("") as status:
        found, manifest = labels_of(args, status.update)
    path = args.out / "overlay.csv"
    table = list(rows(found))
    write_rows(path, [cells(row, COLUMNS) for row in table], manifest)
    versions, machine = manifest["versions"], manifest["machine"]["processor"]
    footer = WORDS.format(
        plane=args.plane, machine=machine, threads=manifest["threads"], torch=versions["torch"],
        date=manifest["date"][:10],
    )  # fmt: skip
    save_figure(draw(found, footer), path.with_suffix(".png"), DPI)
    console.print(f"{path}, .json and .png: {len(table)} rows; the labels are in {args.labels}.")
    return 0


def labels_of(args: argparse.Namespace, say: Any) -> tuple[Overlay, dict[str, Any]]:
    """Return image and labels, and when and how they were computed."""
    network, checkpoint = trained.load_structures(args.plane)
    config = Config(args.plane, every=args.every)
    # As JSON has it, in which it is kept.
    asked = json.loads(json.dumps({"config": asdict(config), "checkpoint": provenance.sha256(checkpoint)}))
    brain = template(config.image)
    if args.labels.is_file() and not args.again:
        labels, metadata = read_tensors(args.labels)
        manifest = json.loads(metadata["manifest"])
        if manifest["asked"] == asked:
            order = manifest["labels"]
            return Overlay(brain.image, brain.affine, {name: labels[name] for name in order}), manifest
    started = provenance.stamp()  # with the code that runs, whatever is changed meanwhile
    found = run(network, brain, config, say)
    manifest = started | {
        "asked": asked, "threads": args.threads, "network": checkpoint.name, "training": trained.record(checkpoint),
        "labels": list(found.labels),
    }  # fmt: skip
    write_tensors(args.labels, found.labels, {"manifest": json.dumps(manifest)})
    return found, manifest
