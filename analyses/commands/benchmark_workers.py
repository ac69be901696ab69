"""`python -m analyses benchmark workers`: the wall clock of one campaign with 1, 2 and 4 worker processes."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analyses.benchmarks.record import stamp
from analyses.benchmarks.workers import ABOUT, COLUMNS, Setting, run
from analyses.paths import RESULTS
from analyses.results_files import cells, write_rows
from mcaprobe.errors import InputError

WORKERS = "workers"
RESULT = RESULTS / f"{WORKERS}.csv"


def add_options(p: argparse.ArgumentParser) -> None:
    """Add what only this benchmark has."""
    group = p.add_argument_group(WORKERS)
    group.add_argument("--workers", type=int, nargs="+", help="numbers of worker processes (1 2 4)")
    group.add_argument("--slices", metavar="RANGE", help=f"of the MNI152 template ({Setting.slices})")
    group.add_argument("--samples", type=int, help=f"of each slice ({Setting.samples})")


def setting_of(args: argparse.Namespace) -> Setting:
    """Return what is measured; InputError where a number makes no sense."""
    stated: dict[str, Any] = {name: getattr(args, name) for name in ("workers", "slices", "samples")}
    stated = {name: value for name, value in stated.items() if value is not None}
    for count in stated.get("workers", ()):
        if count < 1:
            raise InputError(f"Expected --workers of at least 1, got {count}.")
    return Setting(repetitions=args.repetitions, **stated)


def report(setting: Setting, out: Path | None) -> int:
    """Measure, write the rows and the manifest, print the table; return the exit code."""
    console, start, path = Console(), time.monotonic(), out or RESULT
    about = stamp(setting.repetitions) | {"about": ABOUT, "setting": {**asdict(setting), "folder": None}}
    with console.status("") as status:
        rows = run(setting, status.update)
    texts = [cells(row, COLUMNS) for row in rows]
    write_rows(path, texts, about | {"seconds": round(time.monotonic() - start, 1)})
    table = Table(*COLUMNS)
    for row in texts:
        table.add_row(*row.values())
    console.print(table)
    console.print(f"{path}: {len(texts)} rows")
    return 0
