"""How do rows of some networks come into the tables of a comparison that are there already?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.experiments.comparison.networks import ENTRIES
from analyses.experiments.counting import Tables
from analyses.results_files import read_table
from mcaprobe.errors import InputError

Config = Mapping[str, Any]
KEPT = ("rows", "dice", "bits", "layers", "times")


def there(folder: Path, suffix: str, config: Config) -> dict[str, Any] | None:
    """Return the manifest of the rows that a folder holds, None of none.

    Args:
        suffix: Of the files' names.
        config: Of the run whose rows are to be added.
    Raises:
        InputError: what is there is of another configuration.
    """
    path = folder / f"compare{suffix}.json"
    if not path.is_file():
        return None
    manifest: dict[str, Any] = json.loads(path.read_text())
    if manifest.get("config") != json.loads(json.dumps(config)):
        raise InputError(f"Expected rows of the same configuration in {folder} to add to, but {path.name} has another: "
                         "choose another --out, or run all networks.")  # fmt: skip
    return manifest


def grown(tables: Tables, manifest: Mapping[str, Any], folder: Path, suffix: str) -> tuple[Tables, dict[str, Any]]:
    """Return tables and manifest of a run with those of the other networks that the folder holds.

    Args:
        manifest: Of the run, with its `config`, and its `parts`: of each, the commit it was made at.
        suffix: Of the files' names.
    Raises:
        InputError: as `there`.
    """
    before = there(folder, suffix, manifest["config"])
    if before is None:
        return tables, dict(manifest)
    found = {name: _joined(read_table(folder / f"compare_{name}{suffix}.csv"), tables.get(name, [])) for name in KEPT}
    counts = {name: len(rows) for name, rows in found.items()}
    return found, {**manifest, "parts": before["parts"] | manifest["parts"], "tables": counts}


def _joined(there: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    again = {row["network"] for row in new}
    rows = [*(row for row in there if row["network"] not in again), *new]
    order = {entry.name: i for i, entry in enumerate(ENTRIES)}
    return sorted(map(dict, rows), key=lambda row: order[row["network"]])
