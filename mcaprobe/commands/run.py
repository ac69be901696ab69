"""mcaprobe run: one campaign, from a model and an input to the digits of every layer."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands import under_verrou
from mcaprobe.commands.parsing import (
    ESTIMATOR_OPTIONS,
    EXIT_CODES,
    add_estimator,
    add_globs,
    add_output,
    size,
    stated,
)

ABOUT = """\
Run MODEL on INPUT once in IEEE arithmetic and n times with every inexact result
randomly rounded; report how many bits of each activation the rounding leaves.

A run that was killed is resumed by the same command, and gives the same bits.
"""
EXAMPLES = """\
examples:
  mcaprobe run demo mni152 --out brain
        the demo's network on the head that nilearn ships
  mcaprobe run mypackage.mymodel:build_model head.nii.gz --out run1 --plane coronal --samples 20
        your own torch.nn.Module: build_model() returns it, or is it
  mcaprobe run demo mni152 --out low --mode rr --precision 8
        as if computed with 8 bits of mantissa (bfloat16)
  mcaprobe run demo mni152 --out ci --layers 'decoder*' --fail-below 6 --quiet
        a gate for continuous integration
  mcaprobe run demo mni152 --out verrou --backend verrou --samples 5 --print-command
        the commands that would run each sample under Verrou

files in the run directory:
  table.csv                  a row for each layer and region
  heatmap.png                the maps from the first layer to the last
  maps/LAYER.nii.gz, .json   significant bits and share of each class, over the input image
  layers/LAYER.safetensors   the map, histograms of the scores, moments where they were kept
  samples/RUN/LAYER.safetensors   activations where they were kept
  metrics.csv                values of the metrics in each run
  manifest.json              versions, seeds, mode, operators, machine, times, memory
  chunks/, verrou/           finished chunks or samples, while the run is not complete
In file names : and / of a layer's name are written %3A and %2F.

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="run a campaign: a model, an input, n samples",
        description=ABOUT,
        epilog=EXAMPLES + EXIT_CODES,
    )
    parser.set_defaults(command=main)
    parser.add_argument("model", metavar="MODEL", help="package.module:build_model, or demo")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="NIfTI or MGZ image, .npy, .safetensors or .pt tensor, or mni152 (nilearn's template)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="run directory; resumed when it holds the same run",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove the run that DIR holds and start again")
    add_arithmetic(parser)
    under_verrou.add(parser)
    add_image(parser)
    group = parser.add_argument_group("what is recorded")
    add_globs(group, "--layers", "layers to record, such as 'decoder*' (default: all); decisions are layers too: "
              "'*.indices' of poolings, '*.targets' of unpoolings, ':output.labels', '*:argmax'")  # fmt: skip
    add_globs(group, "--keep-moments", "layers whose elements keep their moments, for exact re-computation")
    add_globs(group, "--keep-samples", "layers whose activations are kept, sample by sample")
    group.add_argument("--metric", nargs="+", action="extend", default=[], metavar="MODULE:FUNCTION",
                       help="function of the output that returns a number or a dict of numbers; it gets "
                       "its digits")  # fmt: skip
    add_estimator(parser)
    group = parser.add_argument_group("machine (changes no bit, apart from --block and --device)")
    group.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the process may take, such as 4GiB (default: half of what is free); decides how many samples "
        "run at once",
    )
    group.add_argument("--threads", type=int, metavar="N", help="samples computed side by side (default: all cores)")
    group.add_argument(
        "--chunk", type=int, metavar="N", help="at most N samples at once, so that a killed run loses less"
    )
    group.add_argument(
        "--block",
        type=int,
        metavar="N",
        help="samples accumulated one by one before blocks are merged (default 5)",
    )
    group.add_argument("--executor", default="local", metavar="NAME",
                       help="where the work runs: local (this process; default), processes (of this machine), dask, "
                       "slurm; all workers see the run directory, --memory is what one worker of dask or slurm may "
                       "take")  # fmt: skip
    group.add_argument("--workers", type=int, metavar="N", help="workers at once (default: as the executor has it)")
    group.add_argument("--executor-option", action="append", default=[], metavar="KEY=VALUE",
                       help="option of dask (address=..., or LocalCluster's) or slurm (submitit's, such as "
                       "slurm_partition=...); may be repeated")  # fmt: skip
    group.add_argument("--device", default="cpu", metavar="DEVICE", help="torch device (default cpu)")
    add_output(parser)


def add_arithmetic(parser: argparse.ArgumentParser) -> None:
    """Add samples, mode, route and seed."""
    group = parser.add_argument_group("arithmetic")
    group.add_argument(
        "--samples",
        type=int,
        default=10,
        metavar="N",
        help="perturbed runs (default 10); 59 support p = .95 at 95 %% confidence",
    )
    group.add_argument("--mode", metavar="MODE",
                       help="random (up or down, 1/2 each; default), nearness (stochastic rounding), "
                       "up_down (one ulp), "
                       "rr, pb, full (Monte Carlo arithmetic on results, operands, both)")  # fmt: skip
    group.add_argument(
        "--precision",
        type=int,
        metavar="T",
        help="virtual precision in bits for rr, pb and full, such as 8 or 11",
    )
    group.add_argument("--route", default="auto", metavar="ROUTE",
                       help="exact (compiled kernels round every instruction; modes random and nearness), model "
                       "(stock kernels and a model of their noise), auto (default): exact where possible")  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same bits (default 0)")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the slice, the slices or the patches."""
    group = parser.add_argument_group("slice of an image (the model's input_options give other defaults)")
    group.add_argument("--plane", choices=["axial", "coronal", "sagittal"], help="default axial")
    group.add_argument(
        "--slice",
        type=int,
        dest="index",
        metavar="I",
        help="slice number (default: the one with the most non-zero voxels)",
    )
    group.add_argument("--slices", metavar="RANGE",
                       help="the whole volume, slice by slice: all, START:STOP or START:STOP:STEP; maps are "
                       "three-dimensional then")  # fmt: skip
    group.add_argument("--patches", metavar="XxYxZ",
                       help="the whole volume, patch by patch, through a three-dimensional model; whole for one patch "
                       "of everything")  # fmt: skip
    group.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="neighbouring slices on each side as further channels (default 0)",
    )
    group.add_argument("--size", type=size, metavar="HxW", help="pad or crop to this size around the centre")
    group.add_argument("--voxel-size", type=float, metavar="MM", help="resample to cubic voxels of this edge")
    group.add_argument(
        "--intensity",
        choices=["quantile", "minmax", "none"],
        help="scale to [0, 1] by the 99.9 %% quantile (default), by the extremes, or not",
    )
    group.add_argument("--mask", metavar="FILE", help="brain mask; default: a rule that the manifest states")


def main(args: argparse.Namespace) -> int:
    """Run the campaign and report it; return the exit code."""
    if args.print_command:
        return under_verrou.show(args)
    from mcaprobe.api import estimator_of, run
    from mcaprobe.commands.progress import observer_for
    from mcaprobe.commands.reporting import report
    from mcaprobe.executors import parse_options

    verrou = under_verrou.options(args)
    result = run(
        args.model, args.input, samples=args.samples, mode=under_verrou.mode(args), seed=args.seed,
        precision=args.precision, route=args.route, verrou=verrou, out=args.out, layers=args.layers or "*",
        keep_moments=args.keep_moments or (), keep_samples=args.keep_samples or (),
        metrics=args.metric, estimator=estimator_of(stated(args, ESTIMATOR_OPTIONS)),
        input_options=stated(args, ("plane", "index", "context", "size", "voxel_size", "intensity", "mask")),
        slices=args.slices, patches=args.patches, memory=args.memory,
        threads=args.threads, device=args.device, overwrite=args.overwrite, chunk=args.chunk,
        executor=args.executor, workers=args.workers,
        executor_options=parse_options(args.executor_option),
        observer=observer_for(args), **stated(args, ("block",)),
    )  # fmt: skip
    return report(result, result.rows, args)
