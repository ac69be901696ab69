"""mcaprobe bids: all subjects of a BIDS dataset, as a BIDS App."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.commands.campaign_options import (
    IMAGE,
    REGIONS,
    add_arithmetic,
    add_engine,
    add_image,
    add_layers,
    engine_of,
    regions_of,
)
from mcaprobe.commands.parsing import ESTIMATOR_OPTIONS, EXIT_CODES, add_estimator, add_globs, stated

if TYPE_CHECKING:
    from mcaprobe.bids_app.dataset import Selection
    from mcaprobe.bids_app.folder import Folder
    from mcaprobe.bids_app.settings import Questions

ABOUT = """\
Run a campaign on every T1w image of the BIDS dataset DATASET and write derivatives
to OUT (level participant: tables, maps, masks, a report for each subject); then the
means over the subjects with intervals (level group).

An image that fails does not stop the others: it is listed, with the command that
tries it again, and the exit code is 3. A killed call is resumed by the same command;
images that are complete are not repeated.
"""
EXAMPLES = """\
examples:
  mcaprobe bids dataset dataset/derivatives/mcaprobe participant --model demo
  mcaprobe bids dataset out participant --model demo --participant-label 01 02 --slice 75 90
  mcaprobe bids dataset out participant --model demo --slices all --executor processes --workers 2
        whole volumes, their slices on two workers
  mcaprobe bids dataset out participant --model demo --keep-moments '*pool*' --mask-below 1
  mcaprobe bids dataset out participant --model demo --segmentation dataset/derivatives/aseg
  mcaprobe bids dataset out group --interval bootstrap

files in OUT:
  dataset_description.json, README.md, .bidsignore
  sub-*/[ses-*/]anat/*_sigbits.tsv, .json                 each layer and region, as table.csv of a run
  sub-*/[ses-*/]anat/*_label-LAYER_sigbits.nii.gz, .json  maps, over the T1w image; three-dimensional with --slices
  sub-*/[ses-*/]anat/*_label-LAYER_desc-unstable*_mask.nii.gz, .json   with --mask-below
  sub-*.html, group.html                                  reports
  group_sigbits.tsv, .json                                mean and interval of each layer and region
  work/                                                   run directories, what is done, what failed

"""
LEVELS = ("participant", "group")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bids", help="all subjects of a BIDS dataset", description=ABOUT, epilog=EXAMPLES + EXIT_CODES
    )
    parser.set_defaults(command=main, parser=parser)
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of a BIDS dataset with T1w images")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for derivatives: new, or resumed")
    parser.add_argument("level", choices=LEVELS, metavar="LEVEL", help="participant, or group when these are done")
    parser.add_argument("--model", metavar="MODEL", help="package.module:build_model, or demo (level participant)")
    parser.add_argument("--overwrite", action="store_true", help="start the chosen images again")
    _selection(parser)
    _results(parser)
    add_arithmetic(parser)
    add_image(parser, several=True)
    add_estimator(parser)
    add_engine(parser)
    _group(parser)
    _output(parser)


def _selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which images (default: all)")
    group.add_argument("--participant-label", "--participant_label", nargs="+", action="extend", default=[],
                       metavar="LABEL", help="subjects, with or without sub-")  # fmt: skip
    group.add_argument("--session-label", "--session_label", nargs="+", action="extend", default=[],
                       metavar="LABEL", help="sessions, with or without ses-")  # fmt: skip
    group.add_argument("--bids-filter-file", "--bids_filter_file", type=Path, metavar="FILE",
                       help='JSON such as {"t1w": {"run": 1, "acquisition": null}}')  # fmt: skip
    group.add_argument("--images", nargs="+", action="extend", default=[], metavar="NAME",
                       help="names such as sub-01_ses-2_T1w, or globs")  # fmt: skip


def _results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is recorded and written")
    add_layers(group)
    add_globs(group, "--maps", "layers whose maps are written (default: the main ones)")
    group.add_argument("--mask-below", type=float, metavar="BITS",
                       help="masks of the elements with fewer significant bits; needs --keep-moments")
    group.add_argument("--segmentation", type=Path, metavar="DIR",
                       help="BIDS dataset whose *_dseg.nii.gz, in the space of the T1w images, name regions")
    group.add_argument("--segmentation-desc", metavar="DESC", help="which desc, where an image has several")
    add_globs(group, "--regions", REGIONS)


def _group(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("level group")
    group.add_argument("--interval", choices=["t", "bootstrap"], default="t",
                       help="of the mean: Student's t (default), or bootstrap (BCa; its seed is --seed)")
    group.add_argument("--level", dest="interval_level", type=float, default=0.95, metavar="P",
                       help="confidence of the interval (default .95)")  # fmt: skip


def _output(parser: argparse.ArgumentParser) -> None:
    from mcaprobe.bids_app.boutiques import PrintDescriptor

    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print nothing but the folder, and what failed")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument("--print-descriptor", action=PrintDescriptor, help="print the Boutiques descriptor and end")


def main(args: argparse.Namespace) -> int:
    """Run the level that was asked for; return the exit code."""
    from mcaprobe.bids_app.folder import Folder

    folder = Folder(Path(args.out).absolute(), Path(args.dataset).absolute())
    return _participants(folder, args) if args.level == "participant" else _all_subjects(folder, args)


def _participants(folder: "Folder", args: argparse.Namespace) -> int:
    from mcaprobe.bids_app.dataset import images_of
    from mcaprobe.bids_app.participant import run_participants
    from mcaprobe.bids_app.settings import Machine
    from mcaprobe.commands.bids_words import report_participants
    from mcaprobe.commands.progress import observer_for

    questions = questions_of(args)
    images = images_of(folder.dataset, selection_of(args))
    machine = Machine(threads=args.threads, memory=args.memory, chunk=args.chunk, engine=engine_of(args))
    outcome = run_participants(folder, images, questions, machine, lambda: observer_for(args), args.overwrite)
    return report_participants(folder, outcome, args)


def _all_subjects(folder: "Folder", args: argparse.Namespace) -> int:
    from mcaprobe.bids_app.group import group, write_table
    from mcaprobe.bids_app.group_page import write_page
    from mcaprobe.commands.bids_words import report_group
    from mcaprobe.storage import read_json

    found = group(folder, participants=args.participant_label, interval=args.interval, level=args.interval_level,
                  seed=args.seed)  # fmt: skip
    title = read_json(folder.out / "dataset_description.json")["Name"]
    files = [write_table(found, folder.out), write_page(found, folder.out, title, args.seed)]
    return report_group(folder, found, files, args)


def selection_of(args: argparse.Namespace) -> "Selection":
    """Return which images were asked for."""
    from mcaprobe.bids_app.dataset import Selection, read_filter

    entities = {} if args.bids_filter_file is None else read_filter(args.bids_filter_file)
    return Selection(args.participant_label, args.session_label, args.images, entities)


def questions_of(args: argparse.Namespace) -> "Questions":
    """Return what was asked of each image; InputError where the model is not named."""
    from mcaprobe.api import estimator_of
    from mcaprobe.bids_app.settings import Questions
    from mcaprobe.errors import InputError

    if args.model is None:
        raise InputError("The level participant needs --model, as package.module:build_model or demo.")
    return Questions(
        model=args.model, samples=args.samples, mode=args.mode or "random", precision=args.precision, seed=args.seed,
        route=args.route, layers=tuple(args.layers or "*"), keep_moments=tuple(args.keep_moments or ()),
        estimator=estimator_of(stated(args, ESTIMATOR_OPTIONS)), device=args.device,
        input_options=stated(args, IMAGE), numbers=tuple(args.slice), slices=args.slices, patches=args.patches,
        maps=tuple(args.maps) if args.maps else None, mask_below=args.mask_below,
        segmentation=None if args.segmentation is None else args.segmentation.absolute(),
        segmentation_desc=args.segmentation_desc, regions=regions_of(args), **stated(args, ("block",)),
    )  # fmt: skip
