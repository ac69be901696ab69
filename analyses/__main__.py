"""`python -m analyses`: what belongs to the paper's argument and not to the tool itself."""

import argparse
import sys
from collections.abc import Sequence

import nanops
from analyses.commands import (
    benchmark,
    bids,
    calibrate,
    convert,
    draw,
    evaluate,
    fidelity,
    nans,
    noninferiority,
    overlay,
    run,
    skipping,
    train,
    unseen,
    validate,
)
from mcaprobe.errors import InputError, RunFailure

COMMANDS = (
    train,
    evaluate,
    fidelity,
    unseen,
    benchmark,
    bids,
    skipping,
    calibrate,
    convert,
    run,
    draw,
    nans,
    noninferiority,
    overlay,
    validate,
)  # a new subcommand: a file in analyses/commands with add(subparsers), and its name here


def parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand."""
    p = argparse.ArgumentParser(prog="python -m analyses", description=__doc__)
    subparsers = p.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(subparsers)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 0 done, 2 bad input, 3 a run that failed."""
    args = parser().parse_args(arguments)
    try:
        code: int = args.function(args)
    except (InputError, nanops.InputError, nanops.ConversionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RunFailure, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return code


if __name__ == "__main__":
    sys.exit(main())
