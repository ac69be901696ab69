"""What does the user of `mcaprobe compare` read? A table of layers, what n supports, and where the files are."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcaprobe.commands.reporting import console_for_tables, layer_table, main_and_decisions, percent
from mcaprobe.comparison import ComparedRow, Comparison
from mcaprobe.comparison_files import summary
from mcaprobe.comparison_words import sentences
from mcaprobe.storage import to_json

HEADS = ("bits\nA", "bits\nB", "noise\nA", "noise\nB", "index\nA", "index\nB", "std\nA/B", "Dice", "preci-\nsion",
         "recall")  # fmt: skip


def report(found: Comparison, args: argparse.Namespace, written: Sequence[Path]) -> int:
    """Print the comparison in the form asked for; return the exit code 0."""
    if args.json:
        print(to_json(json_of(found, written)))
    elif args.quiet:
        print(args.out)
    else:
        _print(found, args, written)
    return 0


def json_of(found: Comparison, written: Sequence[Path]) -> dict[str, Any]:
    """Return the JSON object of --json."""
    return {
        "exit_code": 0,
        **summary(found),
        "rows": [row.as_dict() for row in found.rows],
        "files": [str(path) for path in written],
    }


def _print(found: Comparison, args: argparse.Namespace, written: Sequence[Path]) -> None:
    console = console_for_tables()
    listed = found.rows if args.all_layers or args.layers else main_rows(found.rows)
    console.print(layer_table(listed, HEADS, _cells))
    left_out = len({row.layer for row in found.rows}) - len({row.layer for row in listed})
    lines = [f"{left_out} more layers are listed with --all-layers."] if left_out else []
    lines += sentences(found)
    if written:
        lines.append(f"The comparison is {written[0].parent} ({', '.join(path.name for path in written)}).")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def main_rows(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Return the rows of the layers that a picture shows, of decisions and of metrics."""
    return main_and_decisions(rows, {row.layer for row in rows if row.is_index})


def _cells(row: ComparedRow) -> list[str]:
    shares = (row.share_noise_a, row.share_noise_b, row.index_change_rate_a, row.index_change_rate_b)
    return [
        *(_number(bits, 1) for bits in (row.bits_mean_a, row.bits_mean_b)),
        *(percent(share) for share in shares),
        *(_number(value, 2) for value in (row.std_ratio, row.dice, row.precision, row.recall)),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
