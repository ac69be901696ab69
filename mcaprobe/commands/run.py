"""mcaprobe run: one campaign, from a model and an input to the digits of every layer."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands import under_verrou
from mcaprobe.commands.campaign_options import (
    IMAGE,
    REGIONS,
    add_arithmetic,
    add_engine,
    add_image,
    add_recorded,
    engine_of,
    regions_of,
)
from mcaprobe.commands.parsing import ESTIMATOR_OPTIONS, EXIT_CODES, add_estimator, add_globs, add_output, stated

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
    add_image(parser, several=False)
    group = add_recorded(parser)
    group.add_argument("--segmentation", metavar="FILE",
                       help="image of labels in the space of INPUT: a row for each label, of every layer with image "
                       "axes; names are those of the BIDS table beside it")  # fmt: skip
    add_globs(group, "--regions", REGIONS)
    add_estimator(parser)
    add_engine(parser)
    add_output(parser)


def main(args: argparse.Namespace) -> int:
    """Run the campaign and report it; return the exit code."""
    if args.print_command:
        return under_verrou.show(args)
    from mcaprobe.api import estimator_of, run
    from mcaprobe.commands.progress import observer_for
    from mcaprobe.commands.reporting import report

    verrou = under_verrou.options(args)
    result = run(
        args.model, args.input, samples=args.samples, mode=under_verrou.mode(args), seed=args.seed,
        precision=args.precision, route=args.route, verrou=verrou, out=args.out, layers=args.layers or "*",
        keep_moments=args.keep_moments or (), keep_samples=args.keep_samples or (),
        metrics=args.metric, estimator=estimator_of(stated(args, ESTIMATOR_OPTIONS)),
        input_options=stated(args, (*IMAGE, "index", "mask")), segmentation=args.segmentation,
        regions=regions_of(args), slices=args.slices, patches=args.patches, memory=args.memory,
        threads=args.threads, device=args.device, overwrite=args.overwrite, chunk=args.chunk,
        executor=engine_of(args), observer=observer_for(args), **stated(args, ("block",)),
    )  # fmt: skip
    return report(result, result.rows, args)
