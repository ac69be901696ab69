"""How are rows of several runs kept in one file, with a manifest that says when and where each part was measured?"""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyses import provenance
from analyses.benchmarks.config import cores
from analyses.benchmarks.rows import COLUMNS, ELSEWHERE, Row, elsewhere, key, merged
from analyses.results_files import cells, write_rows
from mcaprobe.errors import InputError

ABOUT = (
    "rows: median, low and high of the times of all repetitions, in the row's unit; ratio: median over the median of "
    "stock torch in the format `baseline`, timed before, between and after in the same run; ratio_low and ratio_high: "
    "extremes of it and of the ratios of the repetitions; ratio_fastest: of the two fastest times; perturbed operators "
    "take contiguous operands, as in a campaign; rows of the part elsewhere were measured in no run of this command"
)


def stamp(repetitions: int) -> dict[str, Any]:
    """Return where, when and with what something is about to be timed, and the machine's load average before it."""
    load = [round(value, 2) for value in os.getloadavg()]
    return provenance.stamp() | {"cores": cores(), "repetitions": repetitions, "load_before": load}


def keep(out: Path, rows: Sequence[Row], about: dict[str, Any], seconds: float) -> list[dict[str, str]]:
    """Write the rows over those of the same key in `out`, the manifest beside it; return every row as written.

    Raises:
        InputError: `out` or its manifest holds something else.
    """
    kept, measured = earlier(out)
    texts = merged(kept, [cells(row, COLUMNS) for row in [*rows, *elsewhere()]])
    present = {key(row) for row in texts if row["part"] != ELSEWHERE}
    measured |= {key(row): about for row in rows}
    manifest = {"about": ABOUT, "command": about["command"], "date": about["date"], "seconds": round(seconds, 1),
                "measured": {name: measured[name] for name in sorted(present)}}  # fmt: skip
    write_rows(out, texts, manifest)
    return texts


def earlier(out: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the rows that `out` holds and what its manifest says of them, by key; nothing where there is no file."""
    if not out.exists():
        return [], {}
    try:
        with out.open(newline="") as file:
            rows = [cells(row, COLUMNS) for row in csv.DictReader(file)]
        measured = json.loads(out.with_suffix(".json").read_text())["measured"]
        missing = {key(row) for row in rows if row["part"] != ELSEWHERE} - set(measured)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"Expected {out} to be an earlier benchmark with its manifest: {type(error).__name__}."
        ) from error
    if missing:
        raise InputError(f"Expected the manifest of {out} to say when {sorted(missing)[0]} was measured.")
    return rows, dict(measured)
