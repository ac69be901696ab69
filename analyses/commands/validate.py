"""`python -m analyses validate MODEL INPUT...`: do the NaNs land where the digits are lost?"""

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import nanops
from analyses import provenance
from analyses.commands.draw import write
from analyses.commands.printing import print_lines
from analyses.commands.validation_drawings import validation, validation_words
from analyses.experiments.counting import Tables, merge
from analyses.figures.fates import draw_fates
from analyses.kept import Kept
from analyses.models.checkpoint import read_tensors, write_tensors
from analyses.models.demo import WEIGHTS
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import texts, write_json, write_table
from analyses.trained import load_structures
from analyses.validation.instability import Sampling
from analyses.validation.study import Plan, subject
from analyses.validation.views import file_of, name_of, views
from mcaprobe.errors import InputError
from mcaprobe.folders import file_hash
from mcaprobe.models import load_model
from mcaprobe.volumes import existing
from nanops import Tolerance

STRUCTURES = "structures"
TOLERANCES = {"256 ulps": Tolerance("ulps", 256)}
ABOUT = (
    "predicted: elements (windows) that are NaN (ambiguous) in the converted network; true: unstable ones of the "
    "stock network's campaign, emulated, mode random (windows: those whose index changed in at least `least` "
    "samples); both; undefined: elements that never varied or were not finite, which are not unstable; "
    "predicted_undefined: NaNs on them; criterion `below 1 bit`: class noise or fewer significant bits (CNH "
    "relative to the IEEE run, p = confidence = .95); `snr below 1`: standard deviation (ddof 0) at least |mean|; "
    "chance_*: expected of a mask of the same size at random places; never_seen: Chao's (1987) lower bound on "
    "ambiguous windows that can change but did not; low, high of places: voxels from the edge of the brain's mask, "
    "negative outside; networks: one IEEE forward of each way, oracle: NaN where the campaign found unstable "
    "unpooling outputs, moved by half the image, or as many at random places; digits: campaigns of the ways "
    "themselves, first slice of each subject, another seed; share_always_nan: class undefined, finite in no run; "
    "share_sometimes_nan: class nan, in some runs"
)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    about = "do the NaNs land where the digits are lost?"
    p = subparsers.add_parser("validate", help=about, description=__doc__)
    p.add_argument("model", help=f"demo, {STRUCTURES} (trained by `train {STRUCTURES}`), or package.module:build_model")
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="an image, mni152, or malc:NUMBER, a labelled brain")
    p.add_argument("--slices", type=int, default=1, help="of each subject, evenly spaced (%(default)s)")
    p.add_argument("--plane", choices=list(AXES), default="axial", help=f"of {STRUCTURES} (%(default)s)")
    p.add_argument("--samples", type=int, default=30, help="of the campaign that makes the masks (%(default)s)")
    p.add_argument("--below", type=float, default=1.0, help="bits below which an element is unstable (%(default)s)")
    probes = "samples of each converted network's own campaign, on the first slice; 0: none (%(default)s)"
    p.add_argument("--probes", type=int, default=10, help=probes)
    p.add_argument("--threshold", type=float, default=0.5, help="the paper's t2 (%(default)s)")
    p.add_argument("--threads", type=int, default=1, help="of torch, and samples side by side (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the campaign (%(default)s)")
    p.add_argument("--overrides", type=Path, metavar="FILE", help="tolerances that `calibrate` wrote, to be tried too")
    p.add_argument("--picture", action="store_true",
                   help="draw where NaNs and unstable elements lie on the first slice of the first input")
    p.add_argument("--name", help="of the results: validation_NAME_*.csv (default: the model's)")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
    p.set_defaults(function=validate)


def validate(args: argparse.Namespace) -> int:
    """Compare subject by subject, keep each, write rows, summaries, manifest and page; print the summary."""
    plan, name = plan_of(args), name_for(args)
    torch.set_num_threads(args.threads)
    network, identity = network_of(args.model, args.plane)
    console, start = Console(), time.monotonic()
    kept = Kept("validate", {
        "network": identity, "commit": provenance.commit(), "plan": asdict(plan), "slices": args.slices,
        "plane": args.plane,
    })  # fmt: skip
    tables: Tables = {}
    with console.status("") as status:
        for source in args.inputs:
            maps = kept.folder / f"{key_of(name, source)}.safetensors" if args.picture and not tables else None
            found = _part(kept, key_of(name, source), network, source, args, plan, maps, status.update)
            merge(tables, found)
            console.print(f"{provenance.now()} {name_of(source)}: {sum(map(len, found.values()))} rows")
    manifest = provenance.stamp() | {
        "experiment": "validate", "network": identity, "plan": asdict(plan), "slices": args.slices, "plane": args.plane,
        "subjects": [name_of(source) for source in args.inputs], "threads": args.threads, "about": ABOUT,
        "mode": "random, emulated", "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    for table, rows in tables.items():
        write_table(args.out / f"validation_{name}_{table}.csv", texts(rows))
    stem = args.out / f"validation_{name}"
    write_json(stem.with_suffix(".json"), manifest)
    if args.picture:
        fates = read_tensors(kept.folder / f"{key_of(name, args.inputs[0])}.safetensors")[0]
        words = f"{name_of(args.inputs[0])}. {validation_words(manifest)}"
        write(stem.with_name(f"{stem.name}_fates.png"), draw_fates(fates, words))
    for path, made in validation(args.out, name):
        write(path, made)
        if isinstance(made, str):
            print_lines(console, made.splitlines()[4:])
    console.print(f"{stem}*.csv, .json, .md, .png", soft_wrap=True)
    return 0


def key_of(name: str, source: str) -> str:
    """Return the name of a subject's kept part: of the network's, the subject's and the content of its file."""
    return f"{name}-{re.sub('[^A-Za-z0-9]+', '-', name_of(source))}-{file_hash(existing(file_of(source)))[:8]}"


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what was asked for; InputError where a number makes no sense."""
    for option, least in (("slices", 1), ("samples", 2), ("probes", 0), ("threads", 1), ("seed", 0)):
        if getattr(args, option) < least:
            raise InputError(f"Expected --{option} of at least {least}, got {getattr(args, option)}.")
    if args.probes == 1:
        raise InputError("Expected --probes of 0 or at least 2, got 1.")
    if not 0 < args.threshold <= 1:
        raise InputError(f"Expected --threshold in (0, 1], got {args.threshold}.")
    repeated = sorted({source for source in args.inputs if args.inputs.count(source) > 1})
    if repeated:
        raise InputError(f"Expected each input once, got {repeated[0]} twice.")
    sampling = Sampling(args.samples, args.below, args.seed, args.threads)
    _ = sampling.criteria  # refuses a threshold that is none
    overrides = None if args.overrides is None else nanops.load_overrides(args.overrides)
    return Plan(sampling, args.probes, TOLERANCES, overrides, args.threshold)


def name_for(args: argparse.Namespace) -> str:
    """Return the name of the results: letters, digits, - and _."""
    name: str = args.name or re.sub(r"[^A-Za-z0-9]+", "_", args.model).strip("_")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"Expected a --name of letters, digits, - and _, got {name!r}.")
    return name


def network_of(model: str, plane: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network in eval mode, and what it is."""
    if model == STRUCTURES:
        network, path = load_structures(plane)
        return network, {"name": model, "file": path.name, "sha256": provenance.sha256(path)}
    loaded = load_model(model)
    about = {"name": model, "sha256": loaded.sha256}
    return loaded.module, about | ({"file": WEIGHTS.name} if model == "demo" else {})


def _part(
    kept: Kept, key: str, network: nn.Module, source: str, args: argparse.Namespace, plan: Plan, maps: Path | None,
    say: Any,
) -> Tables:  # fmt: skip
    """Return the tables of a subject, kept or new; where `maps` is a file, it is there afterwards."""
    fates: dict[str, Any] = {}

    def compute() -> Tables:
        seen: Sequence[Any] = list(views(network, source, args.slices, args.plane))
        found = subject(network, seen, plan, say, None if maps is None else fates)
        if maps is not None:
            maps.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(maps, fates, {"subject": name_of(source)})
        return found

    return kept.part(f"{key}-picture" if maps is not None else key, compute)
