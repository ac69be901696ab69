"""mcaprobe on the command line: one parser, one place where errors become sentences and exit codes."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from mcaprobe.commands import bids, compare, digits, doctor, heatmap, mask, plan, report, run
from mcaprobe.commands.parsing import EXIT_CODES, Parser

ABOUT = """\
mcaprobe: how many digits of each activation mean anything?

A network's activations are rounded billions of times. mcaprobe runs a PyTorch model
several times with every inexact result randomly rounded (Monte Carlo arithmetic) and
reports, layer by layer and voxel by voxel, how many bits survive: as a table, as a
picture, and as NIfTI maps that overlay the input image.
"""
MORE = """\
example:
  mcaprobe run demo mni152 --out brain      10 samples of the demo's network on a head
  mcaprobe plan demo mni152 --samples 59    what that would take: time, memory, disk
  mcaprobe digits brain --method general    another estimator, without a new run
  mcaprobe heatmap brain --layers 'dec*'    the picture again, of some layers
  mcaprobe mask brain --below 1             masks of the elements without digits, as NIfTI
  mcaprobe compare brain other              two runs of one model side by side
  mcaprobe report brain --out report.html   everything in one HTML file
  mcaprobe bids data out participant --model demo     all subjects of a BIDS dataset
  mcaprobe doctor                           what this machine can run

`mcaprobe COMMAND --help` has the options, examples and files of a command.

"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = Parser(prog="mcaprobe", description=ABOUT, epilog=MORE + EXIT_CODES)
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in (run, plan, digits, heatmap, mask, compare, report, bids, doctor):
        command.add(commands)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 1 gate, 2 bad input, 3 failures, 130 interrupted)."""
    from mcaprobe.errors import InputError, RunFailure

    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:  # --help, or a mistake that argparse has told
        return stop.code if isinstance(stop.code, int) else 2
    with warnings.catch_warnings():
        warnings.showwarning = _sentence
        try:
            return int(args.command(args))
        except InputError as error:
            return _fail(args, str(error), 2)
        except RunFailure as error:
            return _fail(args, str(error), 3)
        except KeyboardInterrupt:
            return _fail(args, "Interrupted: finished chunks stay, the same command goes on from there.", 130)


def _fail(args: argparse.Namespace, sentence: str, code: int) -> int:
    print(f"mcaprobe: {sentence}", file=sys.stderr)
    if getattr(args, "json", False):
        from mcaprobe.storage import to_json

        print(to_json({"error": sentence, "exit_code": code}))
    return code


def _sentence(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    print(f"mcaprobe: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
