"""Rows of an experiment's finished parts, so that a killed one goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analyses.experiments.counting import Tables
from analyses.paths import CACHE
from analyses.results_files import write_text

PARTS = CACHE / "experiments"


def key_of(identity: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that stand for an identity of JSON values in the name of what is kept."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


class Kept:
    """A folder of finished parts of one experiment with one identity.

    Args:
        name: Of the experiment.
        identity: All that its rows depend on; JSON values. Another one has another folder.
    """

    def __init__(self, name: str, identity: Mapping[str, Any], folder: Path = PARTS) -> None:
        self.folder = folder / f"{name}-{key_of(identity)}"

    def part(self, key: str, compute: Callable[[], Tables]) -> Tables:
        """Return the tables of a part: those that are kept, or new ones, which are kept then."""
        path = self.folder / f"{key}.json"
        if path.is_file():
            found: Tables = json.loads(path.read_text())
            return found
        tables = compute()
        write_text(path, json.dumps(tables))
        return tables
