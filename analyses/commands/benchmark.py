"""`python -m analyses benchmark`: what a Monte Carlo campaign costs, and what NaN saves, as ratios to stock PyTorch."""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analyses.benchmarks import campaign, operators, processes
from analyses.benchmarks.config import Config
from analyses.benchmarks.record import earlier, keep, stamp
from analyses.benchmarks.rows import CAMPAIGN, ELSEWHERE, FULL_WIDTH, MEMORY, OPERATORS, PARTS, Row, judged, unsteady
from analyses.commands import benchmark_nan, benchmark_plan, benchmark_workers
from analyses.commands.printing import print_lines, wide_console
from analyses.commands.timing_options import add_timing, timing_of
from analyses.figures.benchmark import markdown, number
from analyses.paths import RESULTS
from mcaprobe import kernels
from mcaprobe.errors import InputError
from mcaprobe.manifest import commit

RESULT = RESULTS / "campaign_cost.csv"
MEASURES: dict[str, Callable[[Config, Callable[[str], None]], list[Row]]] = {
    CAMPAIGN: campaign.run,
    OPERATORS: operators.run,
    MEMORY: processes.memory,
    FULL_WIDTH: processes.whole_slice,
}
DESCRIPTION = """\
Time beside stock PyTorch, turn by turn in the same run.
nan_conv, nan_pool: the NaN operators; exit code 1 where a speed-up measured in this run is below its bound.
plan: what mcaprobe plan predicts, beside the campaigns really run; exit code 1 where it is more than 25 % off
(neither --repetitions nor --threads applies).
campaign: campaigns and single perturbed operators, and peak memory.
workers: the wall clock of one campaign on 1, 2 and 4 worker processes.
Judged: the ratio of the medians, of the campaign to stock forwards in channels_last, of a convolution to the faster
format of stock. Exit code 1 where a judged ratio measured in this run exceeds its bound. Rows of parts (and thread
counts) that are not measured stay as the CSV has them."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "benchmark",
        help="what does a campaign cost, what do NaNs save, against stock PyTorch?",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = ["campaign", *benchmark_nan.WHAT, benchmark_plan.WHAT, benchmark_workers.WORKERS]
    p.add_argument("what", choices=kinds, help="what to measure")
    add_timing(p, "each call")
    p.add_argument("--parts", help=f"of a campaign: among {', '.join(PARTS)} ({','.join(PARTS[:3])})")
    p.add_argument("--full-width", action="store_true", help="a campaign's part full-width too, which takes long")
    p.add_argument("--out", type=Path, help="the CSV to write (in analyses/results)")
    benchmark_workers.add_options(p)
    p.set_defaults(function=benchmark)


def config_of(args: argparse.Namespace) -> Config:
    """Return what the parsed arguments ask to be measured; InputError where one makes no sense."""
    repetitions, threads = timing_of(args)
    asked = [part.strip() for part in (args.parts or ",".join(PARTS[:3])).split(",")]
    for part in asked:
        if part not in PARTS:
            raise InputError(f"Expected --parts among {', '.join(PARTS)}, got {part!r}.")
    if args.out is not None and args.out.suffix != ".csv":
        raise InputError(f"Expected --out to end in .csv, got {args.out}.")
    parts = [part for part in PARTS if part in asked or (part == FULL_WIDTH and args.full_width)]
    return Config(parts=parts, repetitions=repetitions, threads=threads)


def benchmark(args: argparse.Namespace) -> int:
    """Measure, write the rows, print the tables; exit code 1 where a judged ratio exceeds its bound."""
    config = config_of(args)
    if args.what == benchmark_workers.WORKERS:
        return benchmark_workers.report(benchmark_workers.setting_of(args), args.out)
    if args.what != "campaign":
        if args.parts or args.full_width:
            raise InputError(f"Expected --parts and --full-width with a campaign only, got {args.what}.")
        if args.what == benchmark_plan.WHAT:
            return benchmark_plan.report(args.out)
        return benchmark_nan.report(args.what, config.repetitions, tuple(config.threads), args.out)
    return report(config, args.out or RESULT)


def report(config: Config, out: Path) -> int:
    """Measure what `config` says, keep it in `out`, print it; return the exit code."""
    console, start = wide_console(170), time.monotonic()
    earlier(out)  # a file that is none of ours is refused before hours of measuring
    about = stamp(config.repetitions) | {"commit_mcaprobe": commit(), "kernels": kernels.about(), "seed": config.seed}
    with console.status("") as status:
        rows = [judged(row) for part in config.parts for row in MEASURES[part](config, status.update)]
    texts = keep(out, rows, about, time.monotonic() - start)
    print_rows(console, texts)
    print_lines(console, markdown(texts))
    missed = [row for row in rows if row.get("met") is False]
    console.print(f"{out}: {len(texts)} rows, {sum('met' in row for row in rows)} judged, {len(missed)} missed")
    for row in unsteady(rows):
        console.print(
            f"  Not quiet: {row['format']} stock on {row['threads']} threads took {row['low']:.2f} to "
            f"{row['high']:.2f} s: measure again, or see ratio_fastest.",
            markup=False,
        )
    for row in missed:
        console.print(
            f"  NOT MET: {row['subject']}, {row['route']} {row['mode']}, {row['threads']} threads: "
            f"{row['ratio']:.2f} > {row['bound']:g}",
            markup=False,
        )
    return 1 if missed else 0


def print_rows(console: Console, rows: Sequence[dict[str, str]]) -> None:
    """Print one table: every row that was measured, then those of elsewhere."""
    table = Table(title="Cost against stock PyTorch (ratio of medians; low to high over the repetitions)")
    for name in ("part", "subject", "what", "route, mode"):
        table.add_column(name)
    for name in ("threads", "median", "low to high", "ratio", "range", "bound"):
        table.add_column(name, justify="right")
    for row in rows:
        bound = f"{row['bound']} {'met' if row['met'] == 'True' else 'NOT MET'}" if row["bound"] else ""
        variant = " ".join(filter(None, (row["route"], row["mode"], row["format"] if not row["route"] else "")))
        ratio = number(row["ratio"]) if row["ratio"] else ""
        span = f"{number(row['ratio_low'])} to {number(row['ratio_high'])}" if row["ratio_low"] else ""
        part = "elsewhere, not measured" if row["part"] == ELSEWHERE else row["part"]
        table.add_row(part, row["subject"], row["what"], variant, row["threads"], *_measured(row), ratio, span, bound)
    console.print(table)


def _measured(row: dict[str, str]) -> tuple[str, str]:
    """Return the median with its unit, and the range."""
    if not row["median"]:
        return "", ""
    scale, unit = (1000.0, "ms") if row["part"] == OPERATORS else (1.0, row["unit"])
    median, low, high = (number(scale * float(row[name])) for name in ("median", "low", "high"))
    return f"{median} {unit}", f"{low} to {high}"
