"""`python -m analyses calibrate MODEL INPUT...`: which tolerance calls those windows ambiguous whose index changes?"""

import argparse
from dataclasses import replace

import nanops
from analyses.commands.subjects import Study, add_options, sampling_of
from analyses.experiments.counting import Row, Tables
from analyses.validation import sweep
from analyses.validation.calibration import chosen
from analyses.validation.gaps import poolings
from analyses.validation.instability import Sampling, changes, probe
from analyses.validation.study import Say, total
from analyses.validation.views import views

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
    add_options(p, "calibrate")
    p.set_defaults(function=calibrate)


def calibrate(args: argparse.Namespace) -> int:
    """Sweep subject by subject, keep each; write rows, the configuration for nanops.convert, page and figure."""
    sampling = sampling_of(args)
    study = Study.of("calibrate", args, sampling=sampling)
    tables = study.tables(lambda source, say: _subject(study, source, sampling, say))
    settings, manifest = chosen(tables["sweep"]), study.manifest(ABOUT)
    study.write(tables, manifest)
    overrides = study.stem.with_name(f"{study.stem.name}_overrides.json")
    nanops.save_overrides(overrides, settings, manifest)
    if len(args.inputs) == 1:
        study.console.print("No subject was held out: that takes two or more.")
    study.draw()
    words = f"{study.stem}*.csv, .json, .md, .png; nanops.convert(model, overrides=...) reads {overrides}"
    study.console.print(words, soft_wrap=True)
    return 0


def _subject(study: Study, source: str, sampling: Sampling, say: Say) -> Tables:
    swept: list[Row] = []
    areas: list[Row] = []
    for view in views(study.network, source, study.args.slices, study.args.plane):
        say(f"{view.subject}, slice {view.index}")
        found = list(poolings(study.network, view.input.tensor))
        layers = tuple(f"{pooling.layer}*" for pooling in found)
        run = probe(study.network, view, replace(sampling, layers=layers), keep=("*.indices",))
        for pooling in found:
            changed = changes(run, f"{pooling.layer}.indices") > 0
            swept += sweep.rows({"subject": view.subject}, pooling, changed)
            areas += sweep.areas({"subject": view.subject, "slice": view.index}, pooling, changed)
    return {"sweep": total(swept), "areas": areas}
