"""`python -m analyses benchmark plan`: what `mcaprobe plan` predicts, beside what the campaigns really take."""

import time
from pathlib import Path

from rich.console import Console

from analyses.benchmarks import plans
from analyses.benchmarks.record import stamp
from analyses.commands.printing import print_lines
from analyses.paths import RESULTS
from analyses.results_files import cells, page, table, write_rows, write_text

RESULT = RESULTS / "plan.csv"
WHAT = "plan"
ABOUT = (
    "rows: predicted: by mcaprobe plan --json, in a process of its own just before the run; measured: of the same "
    "command line of mcaprobe run: wall clock of its process; the largest sum of the resident memory of it and its "
    "workers, looked at every 0.05 s; bytes of its run directory; error: (predicted - measured) / measured; "
    "plan_seconds: what the prediction itself took"
)


def report(out: Path | None) -> int:
    """Predict, run, write and print; return 1 where an error exceeds its bound, else 0."""
    console, start, path = Console(), time.monotonic(), out or RESULT
    about = stamp(1) | {"about": ABOUT}  # before the measurement: of the code that is measured
    with console.status("") as status:
        found, said = plans.run(status.update)
    rows = [cells(row, plans.COLUMNS) for row in found]
    write_rows(path, rows, about | {"seconds": round(time.monotonic() - start, 1), "forecasts": said})
    plans.forget()
    lines = markdown(rows)
    write_text(path.with_suffix(".md"), page("What mcaprobe plan predicts, and what campaigns take", path.name, lines))
    print_lines(console, lines)
    missed = [row for row in found if not row["met"]]
    console.print(f"{path}: {len(rows)} rows, {len(missed)} missed")
    for row in missed:
        console.print(f"  NOT MET: {row['case']}, {row['quantity']}: {row['error']:+.0%} (bound {plans.BOUND:.0%})")
    return 1 if missed else 0


def markdown(rows: list[dict[str, str]]) -> list[str]:
    """Return the table of the rows of the CSV; bytes as MiB."""
    shown = []
    for row in rows:
        scale, unit = (2**20, "MiB") if row["unit"] == "bytes" else (1, row["unit"])
        values = (f"{float(row[name]) / scale:.4g} {unit}" for name in ("predicted", "measured"))
        shown.append([row["case"], row["quantity"], *values, f"{float(row['error']):+.0%}"])
    return table("| campaign | quantity | predicted | measured | error |", shown)
