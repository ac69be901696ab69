"""`python -m analyses bids FOLDER`: labelled brains as a BIDS dataset, on workers, killed once and resumed."""

import argparse
from pathlib import Path

from analyses.brains import TEST
from analyses.experiments.bids_campaign import Config, run

DESCRIPTION = """\
Make a BIDS dataset of labelled brains (links) in FOLDER, start `mcaprobe bids` on it with worker processes, kill it
(SIGKILL) when the first subject is done and the next has begun, give the same command again, then the group level.
Derivatives: FOLDER/dataset/derivatives/mcaprobe, with group.html and a report for each subject."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "bids", help="does a campaign over labelled brains survive a kill?", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
    p.add_argument("--brains", nargs="+", default=list(TEST), metavar="NUMBER", help="labelled brains (%(default)s)")
    p.add_argument("--model", default="demo", help="package.module:build_model, or demo (%(default)s)")
    p.add_argument("--slices", default="all", metavar="RANGE", help="as of mcaprobe bids (%(default)s)")
    p.add_argument("--voxel-size", type=float, metavar="MM", help="resample to this edge (default: as the images are)")
    p.add_argument("--samples", type=int, default=10, help="perturbed runs (%(default)s)")
    p.add_argument("--workers", type=int, default=2, help="worker processes (%(default)s)")
    p.add_argument("--threads", type=int, default=1, help="of each worker (%(default)s)")
    p.add_argument("--layers", nargs="+", default=["*pool", ":output*"], metavar="GLOB", help="to record (%(default)s)")
    p.add_argument("--compare", action="store_true", help="run it also without a kill, and compare tables and maps")
    p.set_defaults(function=bids)


def bids(args: argparse.Namespace) -> int:
    """Run it and print what happened; return the exit code."""
    names = ("brains", "model", "slices", "voxel_size", "samples", "workers", "threads", "layers", "compare")
    config = Config(args.folder.absolute(), **{name: getattr(args, name) for name in names})
    found = run(config, print)
    print(f"{found['killed_after']:.0f} s until the kill, {found['resumed_for']:.0f} s from there.")
    if "compared" in found:
        print(f"{found['compared']} tables and maps have the bytes of an uninterrupted campaign.")
    print(f"{config.dataset / 'derivatives' / 'mcaprobe' / 'group.html'}")
    return 0
