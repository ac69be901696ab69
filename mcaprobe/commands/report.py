"""mcaprobe report: one self-contained HTML file from finished runs."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands.parsing import EXIT_CODES, add_globs

ABOUT = """\
Write one HTML file from finished runs: what was run, the digits of each layer as a
table, a heatmap and maps beside the anatomy, masks and NaN maps over it, measured
accuracy and wall clock, a paragraph for a methods section, errors and warnings.

The file holds everything it needs and requests nothing. Runs of one model on slices
of one image share a heatmap and a slider; other runs stand beside each other.
"""
EXAMPLES = """\
examples:
  mcaprobe report brain --out report.html
  mcaprobe report slice60 slice75 slice90 --out report.html --masks slice75/masks
        three slices, and the unstable elements over one of them
  mcaprobe report brain --out report.html --nan nans --rows timing.csv --rows dice.csv
        NaN maps of another program, and what was measured with it

CSV files for --rows; their columns decide what is drawn (optional ones in brackets):
  method,threshold,skipped_share,score[,score_name,subject]      accuracy over skipped work
  way,threads,seconds[,speed_up,low,high]                        wall clock against `stock`
  layer,subject,dice,precision,recall,mcc[,chance_dice,tensor,threshold]    agreement
  anything else                                                  a table
NaN maps for --nan: NIfTI files *_desc-nan_probseg.nii.gz on the grid of the layer's map,
  a JSON file beside each: {"Layer": "decode1.unpool", "Description": "..."}
mcaprobe/report_schema.md has the details.

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report", help="one HTML file from finished runs", description=ABOUT, epilog=EXAMPLES + EXIT_CODES
    )
    parser.set_defaults(command=main)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory of mcaprobe run")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="*.html, new or an earlier report, which is replaced"
    )
    for option, metavar, text in (
        ("--masks", "DIR", "folder of mcaprobe mask, of one of the runs; may be repeated"),
        ("--nan", "DIR", "folder of NaN maps, see below; may be repeated"),
        ("--rows", "FILE", "CSV file of measurements, see below; may be repeated"),
    ):
        parser.add_argument(option, action="append", type=Path, default=[], metavar=metavar, help=text)
    add_globs(parser, "--layers", "layers whose maps are in the file (default: all that fit)")
    parser.add_argument(
        "--max-megabytes",
        type=float,
        default=40.0,
        metavar="MB",
        help="size of the file; layers whose maps do not fit are left out, which the report says (default %(default)g)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", action="store_true", help="print nothing but the path of the report")
    group.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Write the report and say where it is; return the exit code."""
    from mcaprobe.html_report.report import MEGABYTE, report
    from mcaprobe.storage import to_json

    written = report(
        args.runs, args.out, masks=args.masks, nan=args.nan, rows=args.rows, layers=args.layers or "*",
        max_megabytes=args.max_megabytes,
    )  # fmt: skip
    if args.json:
        print(to_json({"report": str(written.path), "bytes": written.size, "layers_with_maps": written.drawn,
                       "layers_left_out": written.left_out, "exit_code": 0}))  # fmt: skip
    elif args.quiet:
        print(written.path)
    else:
        left = f"; {len(written.left_out)} more did not fit" if written.left_out else ""
        print(f"The report is {written.path} ({written.size / MEGABYTE:.1f} MB, maps of {written.drawn} layers{left}).")
    return 0
