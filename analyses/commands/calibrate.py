"""`python -m analyses calibrate MODEL INPUT...`: which tolerance calls those windows ambiguous whose index changes?"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import nanops
from analyses import provenance
from analyses.commands.draw import write
from analyses.commands.printing import print_lines
from analyses.commands.validate import STRUCTURES, key_of, name_for, network_of
from analyses.commands.validation_drawings import calibration
from analyses.experiments.counting import Row, Tables, merge
from analyses.kept import Kept
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import texts, write_json, write_table
from analyses.validation import sweep
from analyses.validation.calibration import chosen
from analyses.validation.gaps import poolings
from analyses.validation.instability import Sampling, changes, probe
from analyses.validation.study import total
from analyses.validation.views import name_of, views
from mcaprobe.errors import InputError

ABOUT = (
    "sweep: a window is called ambiguous where its (max_ties + 1)-th largest value lies within the tolerance of the "
    "largest, in the IEEE forward of the stock network; true: its index changed in at least one of the samples "
    "(emulated, mode random); areas: under the ROC curve, and average precision, over all tolerances; held out: the "
    "setting with the largest mean MCC over the other subjects, judged on the one that is left out; best: that of the "
    "subject itself; of settings of equal MCC the smallest tolerance"
)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    about = "tolerances of ties, layer by layer, from the indices that change"
    p = subparsers.add_parser("calibrate", help=about, description=__doc__)
    p.add_argument("model", help=f"demo, {STRUCTURES} (trained by `train {STRUCTURES}`), or package.module:build_model")
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="an image, mni152, or malc:NUMBER, a labelled brain")
    p.add_argument("--slices", type=int, default=1, help="of each subject, evenly spaced (%(default)s)")
    p.add_argument("--plane", choices=list(AXES), default="axial", help=f"of {STRUCTURES} (%(default)s)")
    p.add_argument("--samples", type=int, default=30, help="of the campaign (%(default)s)")
    p.add_argument("--threads", type=int, default=1, help="of torch, and samples side by side (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the campaign (%(default)s)")
    p.add_argument("--name", help="of the results: calibration_NAME_*.csv (default: the model's)")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    p.set_defaults(function=calibrate)


def calibrate(args: argparse.Namespace) -> int:
    """Sweep subject by subject, keep each; write rows, the configuration for nanops.convert, page and figure."""
    sampling, name = sampling_of(args), name_for(args)
    torch.set_num_threads(args.threads)
    network, identity = network_of(args.model, args.plane)
    console, start = Console(), time.monotonic()
    kept = Kept("calibrate", {
        "network": identity, "commit": provenance.commit(), "sampling": asdict(sampling), "slices": args.slices,
        "plane": args.plane,
    })  # fmt: skip
    tables: Tables = {}
    with console.status("") as status:
        for source in args.inputs:
            compute = partial(_subject, network, source, args, sampling, status.update)
            found = kept.part(key_of(name, source), compute)
            merge(tables, found)
            console.print(f"{provenance.now()} {name_of(source)}: {sum(map(len, found.values()))} rows")
    settings = chosen(tables["sweep"])
    about = provenance.stamp() | {
        "experiment": "calibrate", "network": identity, "sampling": asdict(sampling), "slices": args.slices,
        "plane": args.plane, "subjects": [name_of(source) for source in args.inputs], "threads": args.threads,
        "mode": "random, emulated", "about": ABOUT, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    _write(args.out, name, tables, settings, about, console)
    return 0


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Return what was asked for; InputError where a number makes no sense."""
    for option, least in (("slices", 1), ("samples", 2), ("threads", 1), ("seed", 0)):
        if getattr(args, option) < least:
            raise InputError(f"Expected --{option} of at least {least}, got {getattr(args, option)}.")
    repeated = sorted({source for source in args.inputs if args.inputs.count(source) > 1})
    if repeated:
        raise InputError(f"Expected each input once, got {repeated[0]} twice.")
    return Sampling(args.samples, seed=args.seed, threads=args.threads)


def _subject(network: nn.Module, source: str, args: argparse.Namespace, sampling: Sampling, say: Any) -> Tables:
    swept: list[Row] = []
    areas: list[Row] = []
    for view in views(network, source, args.slices, args.plane):
        say(f"{view.subject}, slice {view.index}")
        found = list(poolings(network, view.input.tensor))
        names = tuple(f"{pooling.layer}*" for pooling in found)
        run = probe(network, view, Sampling(sampling.samples, seed=sampling.seed, threads=sampling.threads,
                                            layers=names), keep=("*.indices",))  # fmt: skip
        for pooling in found:
            changed = changes(run, f"{pooling.layer}.indices") > 0
            swept += sweep.rows({"subject": view.subject}, pooling, changed)
            areas += sweep.areas({"subject": view.subject, "slice": view.index}, pooling, changed)
    return {"sweep": total(swept), "areas": areas}


def _write(
    out: Path, name: str, tables: Tables, settings: Mapping[str, Mapping[str, Any]], about: Row, console: Console
) -> None:
    for table, rows in tables.items():
        write_table(out / f"calibration_{name}_{table}.csv", texts(rows))
    stem = out / f"calibration_{name}"
    overrides = stem.with_name(f"{stem.name}_overrides.json")
    nanops.save_overrides(overrides, settings, about)
    write_json(stem.with_suffix(".json"), about)
    if len(about["subjects"]) == 1:
        console.print("No subject was held out: that takes two or more.")
    for path, made in calibration(out, name):
        write(path, made)
        if isinstance(made, str):
            print_lines(console, made.splitlines()[4:])
    words = f"{stem}*.csv, .json, .md, .png; nanops.convert(model, overrides=...) reads {overrides}"
    console.print(words, soft_wrap=True)
