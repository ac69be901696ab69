"""mcaprobe mask: where the digits of a finished run are lost, as boolean masks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.commands.parsing import ESTIMATOR_OPTIONS, EXIT_CODES, add_estimator, add_globs, stated

if TYPE_CHECKING:
    from mcaprobe.mask_files import Written
    from mcaprobe.masks import Criterion
    from mcaprobe.result import Result

CLASSES = ("number", "noise", "zero", "exact", "shifted", "nan", "inf", "undefined")
REDUCTIONS = ("any", "all", "share", "none")

ABOUT = """\
Mark the elements of each layer of a finished run that one criterion calls unstable:
channel by channel as safetensors, reduced over the channels as NIfTI in the space of
the input image. Elements without digits (0 in all samples, say) are neither stable nor
unstable: they are not marked, they are counted, and have a file of their own.

Layers need the moments of their elements: mcaprobe run --keep-moments. No model is run.
"""
EXAMPLES = """\
examples:
  mcaprobe mask brain --below 1
        fewer than 1 significant bit, or class noise
  mcaprobe mask brain --class noise --layers '*unpool*' --out noise
  mcaprobe mask brain --index-change-rate .05 --out decisions
        decisions (windows of poolings, voxels' labels) that flip in at least 5 % of the samples
  mcaprobe mask brain --index-change-rate .05 --layers ':output.labels' --out labels

files in the folder (SUB: entities of the input's name; LAYER: letters and digits of the layer's):
  SUB_label-LAYER_desc-unstable_mask.nii.gz           any: at least one channel is marked
  SUB_label-LAYER_desc-unstableAll_mask.nii.gz        all: every channel is
  SUB_label-LAYER_desc-unstable_probseg.nii.gz        share: marked channels over all channels
  SUB_label-LAYER_desc-unstableChannels_mask.nii.gz   none: a volume for each channel
  masks.safetensors       each layer by its name, bool; the header holds what the .json says
  undefined.safetensors   likewise, the elements without digits
  masks.csv               counts of each layer
Each has a .json beside it: criterion, estimator, n and what it supports, run, counts.

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "mask", help="masks of the unstable elements of a run", description=ABOUT, epilog=EXAMPLES + EXIT_CODES
    )
    parser.set_defaults(command=main)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of mcaprobe run")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="folder for the masks, new, empty, or of earlier masks, which are replaced "
                        "(default: RUN/masks)")  # fmt: skip
    add_globs(parser, "--layers", "layers to mask (default: all that the criterion can judge)")
    group = parser.add_argument_group("criterion (one; default --below 1)").add_mutually_exclusive_group()
    group.add_argument("--below", type=float, metavar="BITS",
                       help="class noise, or fewer significant bits; 0: class noise only")  # fmt: skip
    group.add_argument("--class", dest="kind", choices=CLASSES, metavar="NAME",
                       help=f"elements of one class: {', '.join(CLASSES)}")  # fmt: skip
    group.add_argument("--snr-below", type=float, metavar="RATIO",
                       help="samples that vary with RATIO times their standard deviation at least |mean|")  # fmt: skip
    group.add_argument("--index-change-rate", type=float, metavar="RATE",
                       help="decisions (indices of poolings, labels, results of argmax) that differ from the IEEE "
                       "run's in at least this share of the samples")  # fmt: skip
    parser.add_argument("--reduce", nargs="+", choices=REDUCTIONS, default=["any", "all", "share"],
                        help="over the channels, a NIfTI file for each (default: any all share)")  # fmt: skip
    add_estimator(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--all-layers", action="store_true",
                       help="list every layer (default: those of the picture of a run, and decisions; "
                       "with --layers, all of these)")  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="print nothing but the folder of the masks")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def main(args: argparse.Namespace) -> int:
    """Make the masks and report them; return the exit code."""
    from dataclasses import replace

    from mcaprobe.commands.masking import report
    from mcaprobe.result import load

    criterion = criterion_of(args)
    run = load(args.run)
    estimator = replace(run.estimator, **stated(args, ESTIMATOR_OPTIONS))
    return report(_written(run, criterion, args, estimator), args)


def criterion_of(args: argparse.Namespace) -> "Criterion":
    """Return the criterion that was asked for; InputError for a threshold out of its range."""
    from mcaprobe.masks import IndexChange, OfClass, SnrBelow, Unstable
    from mcaprobe.statistics import Class

    if args.kind is not None:
        return OfClass(Class[args.kind.upper()])
    if args.snr_below is not None:
        return SnrBelow(args.snr_below)
    if args.index_change_rate is not None:
        return IndexChange(args.index_change_rate)
    return Unstable() if args.below is None else Unstable(args.below)


def _written(run: "Result", criterion: "Criterion", args: argparse.Namespace, estimator: Any) -> "Written":
    from mcaprobe.commands.progress import layers_shown
    from mcaprobe.errors import RunFailure
    from mcaprobe.mask_files import write
    from mcaprobe.products import MASKS

    out = args.out or args.run / MASKS
    with layers_shown(args) as progress:
        try:
            return write(
                run, criterion, out, estimator=estimator, layers=args.layers or "*",
                reduce=list(dict.fromkeys(args.reduce)), progress=progress,
            )  # fmt: skip
        except OSError as error:
            raise RunFailure(f"Cannot write the masks to {out}: {error.strerror}.") from error
