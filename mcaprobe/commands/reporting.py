"""What does the user read at the end? A table of layers, what n supports, and where everything is."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.table import Table

from mcaprobe.gate import Failure, below
from mcaprobe.metrics import PREFIX
from mcaprobe.products import PRODUCTS
from mcaprobe.result import Result
from mcaprobe.selection import selected_names
from mcaprobe.settings import show_bytes
from mcaprobe.statistics import samples_needed, supported_probability
from mcaprobe.storage import to_json
from mcaprobe.summary import Row
from mcaprobe.table import TABLE

WIDTH = 120
HEADS = ("bits", "p05", "noise", "zero", "exact", "shift", "NaN", "undef", "snr<1", "index")


class LayerRow(Protocol):
    """One layer in one region."""

    @property
    def layer(self) -> str:
        """Its name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole layer."""

    @property
    def region(self) -> str:
        """Such as brain, or all."""


AnyRow = TypeVar("AnyRow", bound=LayerRow)


def report(result: Result, rows: Sequence[Row], args: argparse.Namespace, notes: Sequence[str] = ()) -> int:
    """Print the result in the form asked for; return 1 when the gate failed, else 0."""
    failures = [] if args.fail_below is None else below(rows, args.fail_below)
    code = 1 if failures else 0
    if args.json:
        print(to_json(summary(result, rows, args.fail_below, failures, notes, code)))
    elif args.quiet:
        print(result.path)
    else:
        _print(result, rows, args, failures, notes)
    return code


def summary(
    result: Result,
    rows: Sequence[Row],
    fail_below: float | None,
    failures: Sequence[Failure],
    notes: Sequence[str],
    code: int,
) -> dict[str, Any]:
    """Return the JSON object of --json."""
    manifest, n, confidence = result.manifest, result.samples, result.estimator.confidence
    return {
        "run": str(result.path),
        "status": manifest["status"],
        "exit_code": code,
        "model": manifest["identity"]["model"],
        "input": manifest["input"]["name"],
        "samples": n,
        "mode": manifest["mode"],
        "precision": manifest["precision"],
        "seed": manifest["seed"],
        "estimator": str(result.estimator),
        "supported_probability": supported_probability(n, confidence),
        "memory": manifest["memory"],
        "seconds": manifest["times"]["seconds"],
        "operators": manifest["operators"],
        "notes": [*manifest["notes"], *notes],
        "gate": None if fail_below is None else {
            "fail_below": fail_below,
            "failures": [{"layer": f.layer, "region": f.region, "bits": f.bits} for f in failures],
        },
        "rows": [row.as_dict() for row in rows],
    }  # fmt: skip


def _print(
    result: Result,
    rows: Sequence[Row],
    args: argparse.Namespace,
    failures: Sequence[Failure],
    notes: Sequence[str],
) -> None:
    console = console_for_tables()
    listed = rows if args.all_layers or args.layers else main_rows(rows)
    console.print(layer_table(listed, HEADS, _cells))
    left_out = len({row.layer for row in rows}) - len({row.layer for row in listed})
    if left_out:
        where = "" if result.path is None else f" and are in {result.path / TABLE}"
        notes = [f"{left_out} more layers are listed with --all-layers{where}.", *notes]
    for line in sentences(result, notes):
        console.print(line, markup=False, soft_wrap=True)
    if args.fail_below is not None:
        verdict = f"The gate of {args.fail_below:g} bits: " + (
            f"{len(failures)} layers are below." if failures else "passed."
        )
        console.print(verdict, markup=False, style="bold red" if failures else "bold green")
        for failure in failures:
            console.print(f"  {failure}", markup=False, soft_wrap=True)


def console_for_tables() -> Console:
    """Return a console as wide as the terminal; elsewhere tables have 120 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def main_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the layers that a picture shows, of decisions and of metrics."""
    return main_and_decisions(rows, {row.layer for row in rows if row.index_change_rate is not None})


def main_and_decisions(rows: Sequence[AnyRow], decisions: set[str]) -> list[AnyRow]:
    """Return the rows of the layers that a picture shows, of metrics and of the layers of decisions."""
    chosen = main_layers(row.layer for row in rows if row.layer not in decisions) | decisions
    return [row for row in rows if row.layer in chosen]


def main_layers(names: Iterable[str]) -> set[str]:
    """Return the layers that a picture shows, and the metrics; decisions are not to be among the names."""
    unique = list(dict.fromkeys(names))
    return {*selected_names(unique), *(name for name in unique if name.startswith(PREFIX))}


def sentences(result: Result, notes: Sequence[str]) -> list[str]:
    """Return what is said below the table."""
    manifest, n, confidence = result.manifest, result.samples, result.estimator.confidence
    p = supported_probability(n, confidence)
    lines = [
        f"Significant bits: {result.estimator}; mean and 5th percentile over the elements that are numbers.",
        f"n = {n} samples support p = {p:.2f} at {confidence:.0%} confidence without assumptions (General); "
        f"p = 0.95 needs {samples_needed(0.95, confidence)}, p = 0.99 needs {samples_needed(0.99, confidence)}.",
    ]
    unmodelled = [name for name, how in manifest["operators"].items() if how == "unmodelled"]
    if unmodelled:
        lines.append(f"Rounded at their output only, which is too optimistic: {', '.join(unmodelled)}.")
    memory = manifest["memory"]
    lines.append(
        f"{manifest['times']['seconds']:.1f} s; memory: predicted {show_bytes(memory['predicted'])}, "
        f"measured {show_bytes(memory['measured'])}, allowed {show_bytes(memory['allowed'])}."
    )
    lines += notes
    if result.path is not None:
        there = [name for name in (*PRODUCTS, "manifest.json") if (result.path / name).exists()]
        lines.append(f"The run is {result.path} ({', '.join(there)}).")
    return lines


def layer_table(rows: Sequence[AnyRow], heads: Sequence[str], cells: Callable[[AnyRow], list[str]]) -> Table:
    """Return a table of layers: brain and background where there is a mask, else the whole layer.

    Args:
        heads: Of the columns behind layer, shape and region.
        cells: What stands below them.
    """
    masked = {row.layer for row in rows if row.region != "all"}
    shown = [row for row in rows if row.region != "all" or row.layer not in masked]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("layer", overflow="fold", ratio=1)
    table.add_column("shape", no_wrap=True)
    table.add_column("region", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    before = None
    for row in shown:
        again = row.layer == before
        before = row.layer
        table.add_row(
            "" if again else row.layer,
            "" if again else "x".join(map(str, row.shape)),
            row.region,
            *cells(row),
        )
    return table


def _cells(row: Row) -> list[str]:
    broken = None if row.share_nan is None else row.share_nan + (row.share_inf or 0.0)
    return [
        "" if row.bits_mean is None else f"{row.bits_mean:.1f}",
        "" if row.bits_p05 is None else f"{row.bits_p05:.1f}",
        *[percent(s) for s in (row.share_noise, row.share_zero, row.share_exact, row.share_shifted, broken,
                                row.share_undefined, row.share_snr_below_1, row.index_change_rate)],
    ]  # fmt: skip


def percent(share: float | None) -> str:
    """Return a share in percent; `.` for none at all, so that what is there stands out."""
    if share is None:
        return ""
    return "." if share == 0 else f"{100 * share:.1f}" if share >= 0.0005 else "<.1"
