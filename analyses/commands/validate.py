"""`python -m analyses validate MODEL INPUT...`: do the NaNs land where the digits are lost?"""

import argparse
from dataclasses import replace
from pathlib import Path

from torch import Tensor

import nanops
from analyses.commands.draw import write
from analyses.commands.subjects import Study, add_options, expect_at_least, sampling_of
from analyses.commands.validation_drawings import validation_words
from analyses.experiments.counting import Tables
from analyses.figures.fates import draw_fates
from analyses.models.checkpoint import read_tensors, write_tensors
from analyses.validation.study import Plan, Say, subject
from analyses.validation.views import name_of, views
from mcaprobe.errors import InputError
from nanops import Tolerance

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
    add_options(p, "validate", "of the campaign that makes the masks")
    p.add_argument("--below", type=float, default=1.0, help="bits below which an element is unstable (%(default)s)")
    probes = "samples of each converted network's own campaign, on the first slice; 0: none (%(default)s)"
    p.add_argument("--probes", type=int, default=10, help=probes)
    p.add_argument("--threshold", type=float, default=0.5, help="the paper's t2 (%(default)s)")
    p.add_argument("--overrides", type=Path, metavar="FILE", help="tolerances that `calibrate` wrote, to be tried too")
    p.add_argument("--picture", action="store_true",
                   help="draw where NaNs and unstable elements lie on the first slice of the first input")
    p.set_defaults(function=validate)


def validate(args: argparse.Namespace) -> int:
    """Compare subject by subject, keep each, write rows, summaries, manifest and page; print the summary."""
    plan = plan_of(args)
    study = Study.of("validate", args, plan=plan)
    pictured = args.inputs[0] if args.picture else None
    tables = study.tables(
        lambda source, say: _subject(study, source, plan, say, source == pictured),
        {} if pictured is None else {pictured: "-picture"},
    )
    manifest = study.manifest(ABOUT)
    study.write(tables, manifest)
    if pictured is not None:
        fates = read_tensors(_fates_of(study, pictured))[0]
        words = f"{name_of(pictured)}. {validation_words(manifest)}"
        write(study.stem.with_name(f"{study.stem.name}_fates.png"), draw_fates(fates, words))
    study.draw()
    study.console.print(f"{study.stem}*.csv, .json, .md, .png", soft_wrap=True)
    return 0


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what was asked for; InputError where a number makes no sense."""
    sampling = replace(sampling_of(args), below=args.below)
    _ = sampling.criteria  # refuses a threshold that is none
    expect_at_least(args, {"probes": 0})
    if args.probes == 1:
        raise InputError("Expected --probes of 0 or at least 2, got 1.")
    if not 0 < args.threshold <= 1:
        raise InputError(f"Expected --threshold in (0, 1], got {args.threshold}.")
    overrides = None if args.overrides is None else nanops.load_overrides(args.overrides)
    return Plan(sampling, args.probes, TOLERANCES, overrides, args.threshold)


def _subject(study: Study, source: str, plan: Plan, say: Say, picture: bool) -> Tables:
    """Return the tables of a subject; where a picture is wanted, what it shows is in a file afterwards."""
    seen = list(views(study.network, source, study.args.slices, study.args.plane))
    fates: dict[str, Tensor] | None = {} if picture else None
    tables = subject(study.network, seen, plan, say, fates)
    if fates is not None:
        path = _fates_of(study, source)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, fates, {"subject": name_of(source)})
    return tables


def _fates_of(study: Study, source: str) -> Path:
    return study.kept.folder / f"{study.key_of(source)}.safetensors"
