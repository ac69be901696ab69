"""How are rows of several runs kept in one file, with a manifest that says when and where each part was measured?"""

import csv
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyses import provenance
from analyses.benchmarks.config import Config, cores
from analyses.benchmarks.rows import ELSEWHERE, Row, elsewhere, key, merged, text
from analyses.results_files import write_rows
from mcaprobe import kernels
from mcaprobe.errors import InputError
from mcaprobe.manifest import commit

ABOUT = (
    "rows: median, low and high of the times of all repetitions, in the row's unit; ratio: median over the median of "
    "stock torch in the format `baseline`, timed before, between and after in the same run; ratio_low and ratio_high: "
    "extremes of it and of the ratios of the repetitions; ratio_fastest: of the two fastest times; perturbed operators "
    "take contiguous operands, as in a campaign; rows of the part elsewhere were measured in no run of this command"
)


def stamp(config: Config, load: tuple[float, float, float]) -> dict[str, Any]:
    """Return where, when and with what something is measured; `load` is the machine's load average before it."""
    return {
        "command": "python -m analyses " + shlex.join(sys.argv[1:]), "date": provenance.now(),
        "commit": provenance.commit(), "commit_mcaprobe": commit(), "machine": provenance.machine(), "cores": cores(),
        "kernels": kernels.about(), "versions": provenance.versions(), "repetitions": config.repetitions,
        "seed": config.seed, "load_before": [round(value, 2) for value in load],
    }  # fmt: skip


def load_average() -> tuple[float, float, float]:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return os.getloadavg()


def keep(out: Path, rows: Sequence[Row], about: dict[str, Any], seconds: float) -> list[dict[str, str]]:
    """Write the rows over those of the same key in `out`, the manifest beside it; return every row as written.

    Raises:
        InputError: `out` or its manifest holds something else.
    """
    kept, measured = earlier(out)
    texts = merged(kept, [text(row) for row in [*rows, *elsewhere()]])
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
            rows = [text(row) for row in csv.DictReader(file)]
        measured = json.loads(out.with_suffix(".json").read_text())["measured"]
        missing = {key(row) for row in rows if row["part"] != ELSEWHERE} - set(measured)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(
            f"Expected {out} to be an earlier benchmark with its manifest: {type(error).__name__}."
        ) from error
    if missing:
        raise InputError(f"Expected the manifest of {out} to say when {sorted(missing)[0]} was measured.")
    return rows, dict(measured)
