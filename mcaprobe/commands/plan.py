"""mcaprobe plan: what a campaign will take, before it is given to a cluster."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands import under_verrou
from mcaprobe.commands.campaign_options import (
    IMAGE,
    add_arithmetic,
    add_executor_option,
    add_image,
    add_machine,
    add_recorded,
)
from mcaprobe.commands.parsing import EXIT_CODES, stated

ABOUT = """\
Predict time, peak memory and disk of `mcaprobe run` with the same options, by really
running a little of it: short campaigns with a few samples, in a temporary folder. Say
how many samples the probability and confidence asked for need, and what 1000 subjects
would take on 100 workers; say what was measured and what is extrapolated.
"""
EXAMPLES = """\
examples:
  mcaprobe plan demo mni152 --samples 59
  mcaprobe plan demo mni152 --slices all --workers 2 --out /scratch/run1
  mcaprobe plan demo 1x7x256x256 --samples 59 --subjects 1000 --workers 100
        a shape stands for an input: numbers are made up
  mcaprobe plan demo mni152 --samples 5 --backend verrou
        one run under Verrou where it is, else a published ratio

"""
CODES = EXIT_CODES.replace("  1    the gate failed: a layer has fewer bits than --fail-below\n", "")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plan", help="predict time, memory and disk of a campaign", description=ABOUT, epilog=EXAMPLES + CODES
    )
    parser.set_defaults(command=main)
    parser.add_argument("model", metavar="MODEL", help="package.module:build_model, or demo")
    parser.add_argument("input", metavar="INPUT", help="image or tensor, mni152, or a shape such as 1x1x256x256")
    group = parser.add_argument_group("how much, and where")
    group.add_argument("--subjects", type=int, default=1, metavar="S", help="inputs like this one (default 1)")
    group.add_argument("--workers", type=int, default=1, metavar="N", help="workers at once (default 1)")
    group.add_argument("--executor", metavar="NAME",
                       help="local, processes, dask or slurm (default: local for one worker, processes for as many as "
                       "there are processors here, else slurm)")  # fmt: skip
    add_executor_option(group)
    group.add_argument("--out", type=Path, metavar="DIR",
                       help="where the runs would be: short ones are written beside it (default: the temporary folder)")
    group.add_argument("--probability", "--p", type=float, default=0.95, metavar="P",
                       help="for which the number of samples is told (default .95)")  # fmt: skip
    group.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of that (default .95)")
    add_arithmetic(parser)
    under_verrou.add(parser)
    add_image(parser, several=False)
    add_recorded(parser)
    add_machine(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print the prediction only, no progress")
    group.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Predict and print; return the exit code."""
    if args.print_command:
        return under_verrou.show(args)
    from dataclasses import asdict

    from mcaprobe.commands.progress import Sentences
    from mcaprobe.executors import parse_options
    from mcaprobe.forecasting import plan
    from mcaprobe.observer import Observer

    found = plan(
        args.model, args.input, samples=args.samples, subjects=args.subjects, workers=args.workers,
        executor=args.executor, executor_options=parse_options(args.executor_option), probability=args.probability,
        confidence=args.confidence, mode=under_verrou.mode(args), seed=args.seed, precision=args.precision,
        route=args.route, out=args.out, layers=args.layers or "*", keep_moments=args.keep_moments or (),
        keep_samples=args.keep_samples or (), metrics=args.metric,
        input_options=stated(args, (*IMAGE, "index", "mask")),
        slices=args.slices, patches=args.patches, memory=args.memory, threads=args.threads, chunk=args.chunk,
        device=args.device, verrou=under_verrou.options(args),
        observer=Observer() if args.quiet or args.json else Sentences(), **stated(args, ("block",)),
    )  # fmt: skip
    if args.json:
        from mcaprobe.storage import to_json

        print(to_json({**asdict(found), "exit_code": 0}))
    else:
        print(found)
    return 0
