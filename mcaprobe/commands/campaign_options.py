"""Which options of a campaign do `mcaprobe run` and `mcaprobe bids` share, and what do they mean?"""

import argparse
from typing import TYPE_CHECKING, Any

from mcaprobe.commands.parsing import add_globs, size, stated

if TYPE_CHECKING:
    from mcaprobe.executors import Engine

REGIONS = "names of its labels that become regions (default: all; 2 MB a layer for 100)"
IMAGE = ("plane", "context", "size", "voxel_size", "intensity")


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """Add what is perturbed, how, and how often."""
    group = parser.add_argument_group("arithmetic")
    group.add_argument("--samples", type=int, default=10, metavar="N",
                       help="perturbed runs (default 10); 59 support p = .95 at 95 %% confidence")  # fmt: skip
    group.add_argument("--mode", metavar="MODE",
                       help="random (up or down, 1/2 each; default), nearness (stochastic rounding), "
                       "up_down (one ulp), "
                       "rr, pb, full (Monte Carlo arithmetic on results, operands, both)")  # fmt: skip
    group.add_argument("--precision", type=int, metavar="T",
                       help="virtual precision in bits for rr, pb and full, such as 8 or 11")  # fmt: skip
    group.add_argument("--route", default="auto", metavar="ROUTE",
                       help="exact (compiled kernels round every instruction; modes random and nearness), model "
                       "(stock kernels and a model of their noise), auto (default): exact where possible")  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same bits (default 0)")


def add_image(parser: argparse.ArgumentParser, several: bool) -> None:
    """Add which part of an image the model gets, and how it is prepared.

    Args:
        several: Whether there are several images, so that --slice takes several numbers, each a run of its own, and
            no mask fits all.
    """
    group = parser.add_argument_group("part of an image (the model's input_options give other defaults)")
    default = "(default: the one with the most non-zero voxels)"
    if several:
        group.add_argument("--slice", type=int, nargs="+", action="extend", default=[], metavar="I",
                           help=f"single slices by number, each a run of its own {default}")  # fmt: skip
    else:
        group.add_argument("--slice", type=int, dest="index", metavar="I", help=f"a single slice by number {default}")
    group.add_argument("--slices", metavar="RANGE",
                       help="the whole volume, slice by slice: all, START:STOP or START:STOP:STEP; maps are "
                       "three-dimensional then")  # fmt: skip
    group.add_argument("--patches", metavar="XxYxZ",
                       help="the whole volume, patch by patch, through a three-dimensional model; whole for one patch "
                       "of everything")  # fmt: skip
    group.add_argument("--plane", choices=["axial", "coronal", "sagittal"], help="of slices (default axial)")
    group.add_argument("--context", type=int, metavar="N",
                       help="neighbouring slices on each side as further channels (default 0)")  # fmt: skip
    group.add_argument("--size", type=size, metavar="HxW", help="pad or crop to this size around the centre")
    group.add_argument("--voxel-size", type=float, metavar="MM", help="resample to cubic voxels of this edge")
    group.add_argument("--intensity", choices=["quantile", "minmax", "none"],
                       help="scale to [0, 1] by the 99.9 %% quantile (default), by the extremes, or not")  # fmt: skip
    if not several:
        group.add_argument("--mask", metavar="FILE", help="brain mask; default: a rule that the manifest states")


def add_recorded(parser: argparse.ArgumentParser) -> Any:
    """Add what is recorded of one input; return the group."""
    group = parser.add_argument_group("what is recorded")
    add_layers(group)
    add_globs(group, "--keep-samples", "layers whose activations are kept, sample by sample")
    group.add_argument("--metric", nargs="+", action="extend", default=[], metavar="MODULE:FUNCTION",
                       help="function of the output that returns a number or a dict of numbers; it gets "
                       "its digits")  # fmt: skip
    return group


def add_layers(group: Any) -> None:
    """Add which layers are recorded, and of which the moments are kept."""
    add_globs(group, "--layers", "layers to record, such as 'decoder*' (default: all); decisions are layers too: "
              "'*.indices' of poolings, '*.targets' of unpoolings, ':output.labels', '*:argmax'")  # fmt: skip
    add_globs(group, "--keep-moments", "layers whose elements keep their moments, for masks and exact re-computation")


def add_machine(parser: argparse.ArgumentParser) -> Any:
    """Add what the work may take; return the group."""
    group = parser.add_argument_group("machine (changes no bit, apart from --block and --device)")
    group.add_argument("--memory", metavar="SIZE",
                       help="what the process, or one worker of dask or slurm, may take, such as 4GiB (default: half "
                       "of what is free); decides how many samples run at once")  # fmt: skip
    group.add_argument("--threads", type=int, metavar="N", help="samples computed side by side (default: all cores)")
    group.add_argument("--chunk", type=int, metavar="N", help="at most N samples at once, so that a kill loses less")
    group.add_argument("--block", type=int, metavar="N",
                       help="samples accumulated one by one before blocks are merged (default 5)")  # fmt: skip
    group.add_argument("--device", default="cpu", metavar="DEVICE", help="torch device (default cpu)")
    return group


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add what the work may take, and which engine it is given to."""
    group = add_machine(parser)
    group.add_argument("--executor", default="local", metavar="NAME",
                       help="where the work runs: local (this process; default), processes (of this machine), dask, "
                       "slurm; all workers see the run directory")  # fmt: skip
    group.add_argument("--workers", type=int, metavar="N", help="workers at once (default: as the executor has it)")
    add_executor_option(group)
    group.add_argument("--tries", type=int, metavar="N",
                       help="how often work whose worker is lost is given out in all (default 3)")  # fmt: skip


def add_executor_option(group: Any) -> None:
    """Add what an engine is made with."""
    group.add_argument("--executor-option", action="append", default=[], metavar="KEY=VALUE",
                       help="option of dask (address=..., or LocalCluster's) or slurm (submitit's, such as "
                       "slurm_partition=...); may be repeated")  # fmt: skip


def regions_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the globs of regions; InputError where there is no segmentation to choose from."""
    from mcaprobe.errors import InputError

    if args.regions and args.segmentation is None:
        raise InputError("--regions chooses among the labels of --segmentation: give that, too.")
    return tuple(args.regions or "*")


def engine_of(args: argparse.Namespace) -> "Engine":
    """Return where the work runs; InputError for what the executor does not take."""
    from mcaprobe.executors import Engine, parse_options

    return Engine(args.executor, args.workers, parse_options(args.executor_option), **stated(args, ("tries",)))
