"""`python -m analyses fidelity`: the emulator beside Verrou and beside a twin that rounds after every multiply-add."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from analyses import provenance
from analyses.commands.printing import print_lines, wide_console
from analyses.experiments.fidelity import Config, Row, against_twin, against_verrou
from analyses.figures.fidelity import markdown
from analyses.paths import DATA, RESULTS
from analyses.results_files import cells, write_rows
from mcaprobe import kernels
from mcaprobe.errors import InputError

RESULT = RESULTS / "fidelity.csv"
ROUTES = ("exact", "model")
COLUMNS = (
    "route", "comparison", "operator", "output", "mode", "n", "reference_n", "judged", "met", "elements", "rms_ratio",
    "low", "high", "bits", "bits_reference", "bits_difference", "within_half_bit", "exact", "exact_reference",
    "exact_agreement", "change_rate", "change_rate_reference", "change_ratio",
)  # fmt: skip

DESCRIPTION = """\
Hold both routes of the emulator against what Verrou did to the same torch calls, and against a slow twin.
Ratio: root mean square over elements of the standard deviation, ours over theirs, with a 95 % bootstrap interval over
elements. Bits: mean over elements of -log2(std / |IEEE run|). Judged: outputs before the first unpooling; the interval
must meet [.8, 1.25], the mean bits must agree within .25, index change rates within 15 %."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "fidelity",
        help="the emulator beside Verrou and a twin",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--data", type=Path, default=DATA / "verrou", help="folder of Verrou's measurements (%(default)s)")
    p.add_argument("--route", nargs="+", choices=ROUTES, default=list(ROUTES), help="routes to run (both)")
    p.add_argument("--samples", type=int, default=200, help="samples of the emulator (%(default)s)")
    p.add_argument("--shapes", type=int, default=30, help="random shapes against the twin (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    p.add_argument("--out", type=Path, default=RESULT, help="the CSV to write (%(default)s)")
    p.set_defaults(function=fidelity)


def fidelity(args: argparse.Namespace) -> int:
    """Run both comparisons, write the rows, print the tables; exit code 1 where a judged row misses its bound."""
    if args.samples < 2 or args.shapes < 0:
        raise InputError(
            f"Expected --samples of at least 2 and --shapes of 0 or more, got {args.samples}, {args.shapes}."
        )
    console, start = wide_console(150), time.monotonic()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with console.status("") as status:
        for route in args.route:
            config = Config(args.data, route, args.samples, args.seed)
            rows += against_verrou(config, status.update)
            rows += against_twin(config, args.shapes, status.update)
    for row in rows:
        row["met"] = bool(row["met"] and abs(row.get("bits_difference", 0.0)) <= _bits_bound(row))
    manifest = provenance.stamp() | {
        "mode": "emulated", "routes": args.route, "threads": 1, "kernels": kernels.about(), "samples": args.samples,
        "seed": args.seed, "bootstrap": config.bootstrap,
        "verrou": "2.7.0, 20 samples a mode, one thread, AVX2 kernels",
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    texts = [cells(row, COLUMNS) for row in rows]
    write_rows(args.out, texts, manifest)
    print_rows(console, rows)
    for route in args.route:
        print_lines(console, markdown(texts, route))
    missed = [row for row in rows if row["judged"] and not row["met"]]
    console.print(
        f"{args.out}: {len(rows)} rows, {sum(r['judged'] for r in rows)} judged, {len(missed)} missed"
        + "".join(f"\n  missed: {r['route']} {r['operator']} {r['output']} {r['mode']}" for r in missed)
    )
    return 1 if missed else 0


def _bits_bound(row: Row) -> float:
    """Mean bits are judged for the layers of the networks; single operators show theirs."""
    return 0.25 if row["operator"].startswith(("unet", "maxpool")) else float("inf")


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """Print one table for each comparison."""
    parts = [(route, comparison) for route in ROUTES for comparison in ("verrou", "twin")]
    for route, comparison in parts:
        here = [row for row in rows if (row["route"], row["comparison"]) == (route, comparison)]
        if not here:
            continue
        beside = "Verrou" if comparison == "verrou" else "the multiply-add twin"
        table = Table(title=f"Route {route} beside {beside}")
        for name in (
            "operator",
            "output",
            "mode",
            "std ratio",
            "interval",
            "bits",
            "bits there",
            "half bit",
            "exact",
            "exact there",
            "index changes",
            "ok",
        ):
            table.add_column(name, justify="left" if name in ("operator", "output", "mode") else "right")
        for r in here:
            table.add_row(r["operator"], r["output"], r["mode"], *_cells(r))
        console.print(table)


def _cells(r: Row) -> list[str]:
    ok = ("yes" if r["met"] else "NO") if r["judged"] else "(shown)"
    if "change_rate" in r:
        return ["", "", "", "", "", "", "", f"{r['change_rate']:.4f} / {r['change_rate_reference']:.4f}", ok]
    if "rms_ratio" not in r:
        return ["", "", "", "", "", f"{r['exact']:.3f}", f"{r['exact_reference']:.3f}", "", ok]
    return [
        f"{r['rms_ratio']:.3f}",
        f"{r['low']:.2f} to {r['high']:.2f}",
        f"{r['bits']:.2f}",
        f"{r['bits_reference']:.2f}",
        f"{r['within_half_bit']:.2f}",
        f"{r['exact']:.3f}",
        f"{r['exact_reference']:.3f}",
        "",
        ok,
    ]
