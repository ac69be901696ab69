"""`python -m analyses skipping`: what converted networks skip on real slices, and what the wall clock gains."""

import argparse
import time
from pathlib import Path

from rich.console import Console

from analyses.benchmarks.memory import keep_freed
from analyses.benchmarks.networks import subjects
from analyses.benchmarks.record import stamp
from analyses.benchmarks.speed_up import Setting
from analyses.commands.printing import print_lines
from analyses.commands.timing_options import add_timing, timing_of
from analyses.experiments.skipping import COLUMNS, TOTAL, run
from analyses.figures.skipping import markdown
from analyses.paths import DATA, RESULTS
from analyses.results_files import cells, page, write_rows, write_text

RESULT = RESULTS / "skipping.csv"
ABOUT = (
    "rows: a layer, or the network in total; skipped: windows of NaN; filled: windows of background that got a known "
    "output; window_share, mac_share: skipped, of windows and of multiply-accumulates; mean_over_layers: the paper's "
    "figure; executed_share: multiply-accumulates made, of those of a dense network; labels_changed: against stock; "
    "speed_up: stock in its faster memory format over ours in channels last, timed by turns in the same run"
)
OCT = (
    "ReLayNet was trained on retinal OCT, of which no image was at hand: the brain slice shows its ties, not its labels"
)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("skipping", help="what converted networks skip on real slices", description=__doc__)
    p.add_argument("--data", type=Path, default=DATA, help="where the data are")
    add_timing(p, "each network")
    p.add_argument("--out", type=Path, default=RESULT, help="the CSV to write (%(default)s)")
    p.set_defaults(function=skipping)


def skipping(args: argparse.Namespace) -> int:
    """Measure, write rows and manifest, print the table that the README shows."""
    repetitions, threads = timing_of(args)
    console, start = Console(), time.monotonic()
    about = stamp(repetitions) | {"about": ABOUT, "note": OCT, "memory": keep_freed()}
    setting = Setting(repetitions, threads, seconds=0.0)
    with console.status("") as status:
        rows = run(subjects(args.data), setting, progress=status.update)
    texts = [cells(row, COLUMNS) for row in rows]
    write_rows(args.out, texts, about | {"seconds": round(time.monotonic() - start, 1)})
    title = "What converted networks skip, and what the wall clock gains"
    write_text(args.out.with_suffix(".md"), page(title, args.out.name, markdown(texts)))
    print_lines(console, markdown(texts))
    console.print(f"{args.out}: {len(texts)} rows, {sum(row['layer'] == TOTAL for row in texts)} of whole networks")
    return 0
