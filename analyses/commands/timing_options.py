"""How often is something timed, and on how many threads? The options of every command that asks."""

import argparse

from analyses.benchmarks.config import cores
from mcaprobe.errors import InputError


def add_timing(p: argparse.ArgumentParser, what: str) -> None:
    """Add --repetitions and --threads; `what` is timed."""
    p.add_argument("--repetitions", type=int, default=5, help=f"how often {what} is timed (%(default)s)")
    p.add_argument("--threads", type=int, nargs="+", help="thread counts (1 and all cores)")


def timing_of(args: argparse.Namespace) -> tuple[int, tuple[int, ...]]:
    """Return the repetitions and the thread counts, each once; InputError where one makes no sense."""
    if args.repetitions < 1:
        raise InputError(f"Expected --repetitions of at least 1, got {args.repetitions}.")
    threads = tuple(dict.fromkeys(args.threads or (1, cores())))
    for count in threads:
        if not 1 <= count <= cores():
            raise InputError(f"Expected --threads between 1 and the {cores()} cores of this machine, got {count}.")
    return args.repetitions, threads
