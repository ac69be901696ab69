"""Are two run directories the same, apart from the clock?"""

import json
from pathlib import Path
from typing import Any

CLOCKWORK = ("times", "memory", "disk", "chunks", "threads", "notes", "failures", "commit", "command")


def contents(folder: Path) -> dict[str, Any]:
    """Return the bytes of each file by its name; of the manifest all but what depends on the clock and on restarts."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    manifest = json.loads(found.pop("manifest.json"))
    found["manifest"] = {key: value for key, value in manifest.items() if key not in CLOCKWORK}
    return found


def expect_equal(a: Path, b: Path) -> None:
    """Fail with the names of the files that differ."""
    one, two = contents(a), contents(b)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
