"""mcaprobe digits: the same run by another estimator, or its decisions, without running it again."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands.parsing import (
    ESTIMATOR_OPTIONS,
    EXIT_CODES,
    add_estimator,
    add_globs,
    add_output,
    stated,
)

ABOUT = """\
Compute the significant bits of a finished run for another method, reference,
error, probability or confidence, from what the run directory holds: exactly for
layers whose moments were kept, within 1/16 bit from the histograms of the rest.
The run directory is not changed.

--decisions lists instead how often what the network selects flips: indices of its
poolings, targets of its unpoolings, labels of its output, results of its argmax.
"""
EXAMPLES = """\
examples:
  mcaprobe digits brain --method general --confidence .99
  mcaprobe digits brain --layers 'decoder*' --fail-below 6
        exits with 1 when a decoder layer has fewer than 6 bits
  mcaprobe digits brain --decisions
        the share of the decisions that differ from the IEEE run, step by step

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "digits",
        help="recompute the digits of a run by another estimator",
        description=ABOUT,
        epilog=EXAMPLES + EXIT_CODES,
    )
    parser.set_defaults(command=main)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of mcaprobe run")
    add_globs(parser, "--layers", "layers to list and to gate (default: all)")
    parser.add_argument("--decisions", action="store_true",
                        help="list the flip rates of all selection steps instead of bits; of the estimator only "
                        "--confidence applies")  # fmt: skip
    add_estimator(parser)
    add_output(parser)


def main(args: argparse.Namespace) -> int:
    """Recompute and report; return the exit code."""
    from dataclasses import replace

    from mcaprobe.commands.reporting import report
    from mcaprobe.digits import recompute
    from mcaprobe.result import load

    result = load(args.run)
    if args.decisions:
        from mcaprobe.commands.deciding import report as report_decisions

        return report_decisions(result, args)
    estimator = replace(result.estimator, **stated(args, ESTIMATOR_OPTIONS))
    found = recompute(result, estimator, args.layers or "*")
    notes = []
    if found.binned:
        notes.append(f"{len(found.binned)} layers are computed from histograms: their bits are right within 1/16 bit.")
    if found.exact:
        notes.append(f"{len(found.exact)} layers are computed exactly, from their moments or as decisions.")
    return report(result.with_rows(found.rows, estimator), found.rows, args, notes)
