"""mcaprobe heatmap: the picture of a finished run, drawn again without the model."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands.parsing import EXIT_CODES, add_globs

ABOUT = """\
Draw the maps of a finished run from what its directory holds: median significant
bits over the numeric channels, and the class where most channels have one, from
the first layer to the last, beside the anatomy. No model is run.
"""
EXAMPLES = """\
examples:
  mcaprobe heatmap brain --out decoder.png --layers 'decoder*'
  mcaprobe heatmap brain --out figure.pdf

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "heatmap", help="draw the maps of a run again", description=ABOUT, epilog=EXAMPLES + EXIT_CODES
    )
    parser.set_defaults(command=main)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of mcaprobe run")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="picture: .png, .pdf or .svg (default: RUN/heatmap.png)"
    )
    add_globs(parser, "--layers", "layers to draw (default: all with image axes)")
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print nothing but the path of the picture")
    group.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Draw and say where the picture is; return the exit code."""
    from mcaprobe.errors import InputError, RunFailure
    from mcaprobe.products import HEATMAP, save_figure
    from mcaprobe.result import load
    from mcaprobe.storage import DamagedFile, to_json

    path = args.out or args.run / HEATMAP
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise InputError(f"Expected a picture ending in .png, .pdf or .svg, got {path}.")
    try:
        figure = load(args.run).heatmap(args.layers or "*")
    except DamagedFile as error:
        raise InputError(f"The run in {args.run} is damaged: {error}.") from error
    try:
        save_figure(figure, path)
    except OSError as error:
        raise RunFailure(f"Cannot write {path}: {error.strerror}.") from error
    print(
        to_json({"picture": str(path), "exit_code": 0})
        if args.json
        else path
        if args.quiet
        else f"The picture is {path}."
    )
    return 0
