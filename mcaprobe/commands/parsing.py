"""How do options become help pages that read like a manual, and mistakes become one sentence?"""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_CODES = """\
exit codes:
  0    done
  1    the gate failed: a layer has fewer bits than --fail-below
  2    bad input, or a run under Verrou died or proved nothing; finished samples stay
  3    the run finished with failures, or could not finish; finished chunks stay
  130  interrupted by Ctrl-C; finished chunks stay
"""


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps its line breaks and whose errors are one sentence."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Print the sentence and leave with code 2."""
        self.exit(2, f"mcaprobe: {message[:1].upper()}{message[1:]}; see {self.prog} --help.\n")


def add_globs(group: Any, name: str, help: str) -> None:
    """Add an option that takes one or more globs and may be repeated."""
    group.add_argument(name, nargs="+", action="extend", metavar="GLOB", help=help)


def add_estimator(parser: argparse.ArgumentParser) -> None:
    """Add the options of the estimator of significant bits."""
    group = parser.add_argument_group("estimator of significant bits (Sohier et al. 2021)")
    group.add_argument(
        "--method",
        choices=["cnh", "general"],
        help="cnh: centred normality hypothesis (default); general: no assumption, from the extremes",
    )
    group.add_argument(
        "--reference",
        choices=["ieee", "mean"],
        help="what samples are compared with: the unperturbed IEEE run (default) or their mean",
    )
    group.add_argument(
        "--error", choices=["relative", "absolute"], help="Z = X / reference - 1 (default) or X - reference"
    )
    group.add_argument(
        "--probability",
        type=float,
        metavar="P",
        help="the bits are significant with this probability (default .95)",
    )
    group.add_argument("--confidence", type=float, metavar="C", help="confidence of that statement (default .95)")
    group.add_argument("--convention", choices=["classes", "published"],
                       help="classes: zero, exact and shifted elements have no bits (default); "
                       "published: every element has bits, zeros count as noise")  # fmt: skip


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the gate and the form of the output."""
    group = parser.add_argument_group("gate and output")
    group.add_argument("--fail-below", type=float, metavar="BITS",
                       help="exit with 1 when a listed layer or metric has fewer mean significant bits, in the "
                       "brain where there is a mask, else everywhere; "
                       "noise, NaN and inf count as 0 bits, elements that are zero, exact or shifted do "
                       "not count")  # fmt: skip
    group.add_argument("--all-layers", action="store_true",
                       help="list every layer (default: those of the picture, decisions and metrics; with "
                       "--layers, all of these)")  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="print nothing but the path of the run")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


ESTIMATOR_OPTIONS = ("method", "reference", "error", "probability", "confidence", "convention")


def stated(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the options among `names` that the user gave."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def size(text: str) -> tuple[int, int]:
    """Return (H, W) of `256x256` or `256`."""
    parts = text.lower().split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 256x256, got {text!r}")
    return numbers[0], numbers[1]


Command = Callable[[argparse.Namespace], int]
