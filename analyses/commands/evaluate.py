"""`python -m analyses evaluate tissue`: Dice of the demo's network on labelled brains it never saw."""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from analyses import provenance
from analyses.labels import REGIONS, TABLE, regions, tissue_table, tissues
from analyses.metrics import DICE_DEFINITION, DICE_OPTIONS, dice_of_classes
from analyses.models.demo import WEIGHTS, build_model
from analyses.paths import DATA, RESULTS
from analyses.results_files import write_rows
from analyses.statistics import bootstrap_interval
from analyses.training.template import CLASSES
from analyses.volumes import load_head, segment
from mcaprobe.errors import InputError
from mcaprobe.volumes import read_volume

RESULT = RESULTS / "tissue_dice.csv"
Row = dict[str, object]

DESCRIPTION = """\
Compare the demo's network with manual labels: the brains of the MICCAI 2012 multi-atlas challenge (OASIS images,
Neuromorphometrics labels, CC BY-NC 3.0; not part of this repository), skull-stripped, 1 mm, whole volumes.
Only numbers are written, no picture."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "evaluate",
        help="Dice of the demo's network on labelled brains",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("what", choices=["tissue"], help="what to evaluate: the tissue segmentation of the demo")
    p.add_argument(
        "--data", type=Path, default=DATA / "malc", help="folder with ID_SS.nii.gz, ID_glm.nii.gz and the label table"
    )
    p.add_argument("--weights", type=Path, default=WEIGHTS, help="the checkpoint (%(default)s)")
    p.add_argument("--subjects", nargs="+", help="only these (all)")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    p.add_argument("--out", type=Path, default=RESULT, help="the CSV to write (%(default)s)")
    p.set_defaults(function=evaluate)


def subjects_of(data: Path, wanted: Sequence[str] | None) -> list[str]:
    """Return the subjects that have an image and labels; InputError where there is none, or a wanted one is missing."""
    if not data.is_dir():
        raise InputError(f"Expected a folder of labelled brains at {data}, found none.")
    found = [p.name.removesuffix("_SS.nii.gz") for p in sorted(data.glob("*_SS.nii.gz"))]
    found = [name for name in found if (data / f"{name}_glm.nii.gz").is_file()]
    if not found:
        raise InputError(f"Expected images ID_SS.nii.gz with labels ID_glm.nii.gz in {data}, found none.")
    missing = sorted(set(wanted or ()) - set(found))
    if missing:
        raise InputError(f"Expected subjects among {', '.join(found)}, got {', '.join(missing)}.")
    return [name for name in found if wanted is None or name in wanted]


def evaluate_subject(network: nn.Module, data: Path, subject: str, table: np.ndarray) -> list[Row]:
    """Return the rows (subject, region, class, dice, voxels) of one brain."""
    image, manual = data / f"{subject}_SS.nii.gz", data / f"{subject}_glm.nii.gz"
    head = load_head(image)
    labels = read_volume(manual).data.astype(np.int64)
    if labels.shape != tuple(head.shape):
        raise InputError(f"Expected labels of shape {tuple(head.shape)} in {manual}, got {labels.shape}.")
    predicted = segment(network, head)
    target = torch.from_numpy(tissues(labels, table))
    rows: list[Row] = []
    for region, where in regions(labels, head.numpy() > 0, table).items():
        inside = torch.from_numpy(where)
        scores = dice_of_classes(predicted, target, inside, len(CLASSES))
        counts = torch.bincount(target[inside].long(), minlength=len(CLASSES)).tolist()
        for name, score, count in zip(CLASSES, scores, counts, strict=True):
            dice = "nan" if math.isnan(score) else f"{score:.5f}"
            rows.append({"subject": subject, "region": region, "class": name, "dice": dice, "voxels": count})
    return rows


def summary(rows: Sequence[Mapping[str, object]], seed: int) -> list[Row]:
    """Return mean, 95 % interval, extremes and n over subjects for each region and class; NaNs are counted apart."""
    out: list[Row] = []
    for region in REGIONS:
        for name in CLASSES:
            here = [float(str(r["dice"])) for r in rows if r["region"] == region and r["class"] == name]
            values = [v for v in here if not math.isnan(v)]
            row: Row = {"region": region, "class": name, "n": len(values), "absent": len(here) - len(values)}
            if values:
                low, high = bootstrap_interval(values, seed)
                row |= {"mean": float(np.mean(values)), "low": low, "high": high}
                row |= {"min": min(values), "max": max(values)}
            out.append(row)
    return out


def print_summary(console: Console, rows: Sequence[Mapping[str, object]]) -> None:
    """Print the summary as a table."""
    table = Table(title="Dice, mean over subjects with 95 % bootstrap interval")
    for name in ("region", "class", "n", "mean", "interval", "min", "max"):
        table.add_column(name, justify="left" if name in ("region", "class") else "right")
    for r in rows:
        if r["n"]:
            numbers = (
                f"{r['mean']:.3f}",
                f"{r['low']:.3f} to {r['high']:.3f}",
                f"{r['min']:.3f}",
                f"{r['max']:.3f}",
            )
            table.add_row(str(r["region"]), str(r["class"]), str(r["n"]), *numbers)
    console.print(table)


def evaluate(args: argparse.Namespace) -> int:
    """Segment every brain, write the CSV and its manifest, print the table."""
    if args.threads < 1:
        raise InputError(f"Expected --threads of at least 1, got {args.threads}.")
    torch.set_num_threads(args.threads)
    console = Console()
    names = subjects_of(args.data, args.subjects)
    table = tissue_table(args.data / TABLE)
    network = build_model(args.weights)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = time.monotonic()
    rows: list[Row] = []
    for name in track(names, description="segmenting", console=console):
        rows += evaluate_subject(network, args.data, name, table)
    result = summary(rows, args.seed)
    manifest = provenance.stamp() | {
        "metric": {"name": "torchmetrics dice_score", "definition": DICE_DEFINITION, "options": DICE_OPTIONS},
        "regions": list(REGIONS),
        "interval": "95 % percentile bootstrap over subjects, 10000 draws",
        "seed": args.seed,
        "threads": args.threads,
        "checkpoint": {"file": args.weights.name, "sha256": provenance.sha256(args.weights)},
        "training": network.training_record,
        "summary": result,
        "seconds": round(time.monotonic() - start, 1),
    }
    write_rows(args.out, rows, manifest)
    print_summary(console, result)
    console.print(f"{args.out} and {args.out.with_suffix('.json').name}: {len(names)} subjects, {len(rows)} rows.")
    return 0
