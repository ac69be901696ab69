"""`python -m analyses noninferiority NAME`: is the Dice of an experiment's methods no worse than torch's? From rows."""

import argparse
from pathlib import Path

from analyses import provenance
from analyses.commands.draw import read
from analyses.experiments.noninferiority import ALPHA, MARGIN, NO, NOTHING, UNDECIDED, YES, run
from analyses.figures.noninferiority import markdown
from analyses.paths import RESULTS
from analyses.results_files import cells, page, write_rows, write_text
from analyses.statistics import DRAWS
from mcaprobe.errors import InputError

TEST = f"one-sided paired t-test over subjects; interval: percentile bootstrap of the mean difference, {DRAWS:,} draws"
VERDICTS = (
    f"{NOTHING}: its Dice is 0 in every subject; {YES}: p after Holm below {ALPHA:g}; {NO}: the whole interval below "
    f"-margin; else {UNDECIDED}"
)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    about = "tests of non-inferiority of an experiment's Dice, from its rows"
    p = subparsers.add_parser("noninferiority", help=about, description=__doc__)
    p.add_argument("name", choices=["conservative", "aggressive"], help="which experiment")
    p.add_argument("--margin", type=float, default=MARGIN, help="of Dice (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows (%(default)s)")
    p.set_defaults(function=noninferiority)


def noninferiority(args: argparse.Namespace) -> int:
    """Write rows, manifest and a page of tables beside the rows of the experiment."""
    if not args.margin > 0:
        raise InputError(f"Expected a positive --margin, got {args.margin}.")
    source = f"{args.name}_segmentation_dice"
    rows = run(read(args.results, source), args.margin, args.seed)
    texts = [cells(row, rows[0]) for row in rows]
    path = args.results / f"{args.name}_noninferiority.csv"
    manifest = provenance.stamp() | {
        "margin": args.margin, "alpha": ALPHA, "seed": args.seed, "test": TEST, "verdicts": VERDICTS,
        "source": {f"{source}.csv": provenance.sha256(args.results / f"{source}.csv")},
    }  # fmt: skip
    write_rows(path, texts, manifest)
    says = [
        f"Margin {args.margin:g} of Dice, {TEST}; Holm over the structures of one method.", f"Verdict {VERDICTS}.",
        "A p of 0: all differences are the same and above -margin. A pair with a NaN is left out and counted.", "",
    ]  # fmt: skip
    write_text(path.with_suffix(".md"), page(f"Non-inferiority, {args.name}", path.name, [*says, *markdown(texts)]))
    print(f"{path}, .json and .md: {len(rows)} rows.")
    return 0
