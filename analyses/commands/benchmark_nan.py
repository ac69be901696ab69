"""`python -m analyses benchmark nan_conv | nan_pool`: the NaN operators beside torch's own, in one run."""

import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from analyses import provenance
from analyses.benchmarks import nan_conv, nan_pool
from analyses.benchmarks.memory import keep_freed
from analyses.benchmarks.nan_conv import COLUMNS, GROWTH
from analyses.benchmarks.record import stamp
from analyses.benchmarks.speed_up import Row, Setting
from analyses.benchmarks.timing import UNSTEADY
from analyses.commands.printing import print_lines
from analyses.figures.nan_benchmark import draw_growth, markdown
from analyses.paths import RESULTS
from analyses.results_files import cells, page, write_rows, write_text
from nanops import kernels

MEASURES: dict[str, Callable[[Setting, Callable[[str], None]], list[Row]]] = {
    "nan_conv": nan_conv.run,
    "nan_pool": nan_pool.run,
}
WHAT = tuple(MEASURES)
TITLES = {
    "nan_conv": "Speed-up of the NaN convolution over torch's own",
    "nan_pool": "Speed-up of the NaN poolings over torch's own",
}
ABOUT = (
    "rows: medians of the times of one call; stock: torch's own operator on the same values without NaN, in the faster "
    "of its two memory formats, timed before, between and after ours in the same run; speed_up: stock over ours, its "
    "extremes over the repetitions; ideal: 1 / (1 - skipped windows); executed: multiply-accumulates made, of those of "
    "a dense one, where a window that is computed counts in full even if some of its taps are left out; ours takes "
    "channels last but in the part channels first; NaN convolutions with threshold 1/2 and fill mean"
)


def report(what: str, repetitions: int, threads: tuple[int, ...], out: Path | None) -> int:
    """Measure, write the rows, print the table; return 1 where a speed-up is below its bound, else 0."""
    console, start = Console(), time.monotonic()
    path = out or RESULTS / f"{what}.csv"
    setting = Setting(repetitions=repetitions, threads=threads)
    # Before the measurement: of the code that is measured, whatever is committed meanwhile.
    about = stamp(repetitions) | {
        "about": ABOUT, "kernels": _kernels(), "seed": setting.seed, "memory": keep_freed(),
    }  # fmt: skip
    with console.status("") as status:
        found = MEASURES[what](setting, status.update)
    rows = [cells(row, COLUMNS) for row in found]
    write_rows(path, rows, about | {"seconds": round(time.monotonic() - start, 1)})
    if any(row["part"] == GROWTH for row in rows):
        figure = draw_growth(rows, _footer(setting))
        figure.savefig(path.with_suffix(".png"), dpi=130)
        plt.close(figure)
    write_text(path.with_suffix(".md"), page(TITLES[what], path.name, markdown(rows)))
    print_lines(console, markdown(rows))
    judged = [row for row in found if row.get("met") is not None]
    missed = [row for row in judged if not row["met"]]
    console.print(f"{path}: {len(rows)} rows, {len(judged)} judged, {len(missed)} missed")
    for row in found:
        if row.get("stock_high_ms", 0) > UNSTEADY * row.get("stock_low_ms", 0):
            console.print(
                f"  Not quiet: stock of {row['subject']} on {row['threads']} threads took {row['stock_low_ms']:.2f} to "
                f"{row['stock_high_ms']:.2f} ms: measure again, or see speed_up_fastest.", markup=False,
            )  # fmt: skip
            break
    for row in missed:
        console.print(
            f"  NOT MET: {row['subject']}, {row['pattern']}, {row['threads']} threads: {row['speed_up']:.2f} < "
            f"{row['least']:g}", markup=False,
        )  # fmt: skip
    return 1 if missed else 0


def _footer(setting: Setting) -> str:
    machine = provenance.machine()
    return (
        f"Random NaN, threshold 1/2, 3x3, 64 to 64 channels; medians and extremes of {setting.repetitions} "
        f"repetitions, torch {provenance.versions()['torch']}, {machine['processor']}, {machine['vector']}"
    )


def _kernels() -> str:
    return next((name for name in kernels.names() if kernels.load(name) is not None), kernels.absence())
