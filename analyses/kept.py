"""Rows of an experiment's finished parts, so that a killed one goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analyses.experiments.counting import Tables
from analyses.paths import CACHE
from analyses.results_files import write_text


class Kept:
    """A folder of finished parts of one experiment with one identity.

    Args:
        name: Of the experiment.
        identity: All that its rows depend on; JSON values. Another one has another folder.
    """

    def __init__(self, name: str, identity: Mapping[str, Any], folder: Path = CACHE / "experiments") -> None:
        text = json.dumps(identity, sort_keys=True)
        self.folder = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def part(self, key: str, compute: Callable[[], Tables]) -> Tables:
        """Return the tables of a part: those that are kept, or new ones, which are kept then."""
        path = self.folder / f"{key}.json"
        if path.is_file():
            found: Tables = json.loads(path.read_text())
            return found
        tables = compute()
        write_text(path, json.dumps(tables))
        return tables
