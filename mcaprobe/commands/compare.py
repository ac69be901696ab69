"""mcaprobe compare: two finished runs of one model side by side."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.commands.parsing import ESTIMATOR_OPTIONS, EXIT_CODES, add_estimator, add_globs, stated

if TYPE_CHECKING:
    from mcaprobe.comparison import Comparison

ABOUT = """\
Put two finished runs of one model on one input side by side, layer by layer: mean
significant bits and share of noise of each, the ratio of their standard deviations,
the rate at which their decisions flip, and how far they agree on which elements
are unstable. No model is run and the run directories are not changed.

Standard deviations and unstable elements are compared in layers of which both runs
kept the moments (mcaprobe run --keep-moments); the rest needs none.
"""
EXAMPLES = """\
examples:
  mcaprobe compare exact model --out exact_model
        two routes of the emulator, or the emulator and another backend
  mcaprobe compare exact model --layers '*unpool*' --below 3
        unstable: noise, or fewer than 3 significant bits

files in the folder of --out:
  compare.csv    a row for each layer and region, with all columns
  compare.png    bits, ratios and agreement over the layers
  compare.json   what the runs are, what was compared, and all that is said below the table

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compare",
        help="put two runs of one model side by side",
        description=ABOUT,
        epilog=EXAMPLES + EXIT_CODES,
    )
    parser.set_defaults(command=main)
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="run directory of mcaprobe run, called A")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="another one, called B: ratios are A over B")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the files (default: only the table)")
    add_globs(parser, "--layers", "layers to compare (default: all that both runs have)")
    parser.add_argument(
        "--below",
        type=float,
        default=1.0,
        metavar="BITS",
        help="an element is unstable when its class is noise or it has fewer significant bits (default 1; "
        "0: class noise only)",
    )
    add_estimator(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--all-layers",
        action="store_true",
        help="list every layer (default: those of the picture of a run, decisions and metrics; with --layers, "
        "all of these)",
    )
    group.add_argument("--quiet", action="store_true", help="print nothing but the folder of --out")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def main(args: argparse.Namespace) -> int:
    """Compare, write and report; return the exit code."""
    from dataclasses import replace

    from mcaprobe.commands.comparing import report
    from mcaprobe.commands.progress import layers_shown
    from mcaprobe.comparison import compare
    from mcaprobe.errors import InputError
    from mcaprobe.result import load

    if args.quiet and args.out is None:
        raise InputError("Expected --out with --quiet: without a folder there is nothing left to print.")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"{args.out} is a file, not a folder for the comparison.")
    a, b = load(args.run_a), load(args.run_b)
    estimator = replace(a.estimator, **stated(args, ESTIMATOR_OPTIONS))
    with layers_shown(args) as progress:
        found = compare(a, b, estimator=estimator, below=args.below, layers=args.layers or "*", progress=progress)
    written = [] if args.out is None else _written(found, args.out)
    return report(found, args, written)


def _written(found: "Comparison", out: Path) -> list[Path]:
    from mcaprobe.comparison_files import write
    from mcaprobe.errors import RunFailure

    try:
        return write(found, out)
    except OSError as error:
        raise RunFailure(f"Cannot write the comparison to {out}: {error.strerror}.") from error
