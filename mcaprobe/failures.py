"""What is said when units failed? Which, why, that the rest is kept, and the command that runs exactly these again."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from mcaprobe.errors import RunFailure

SHOWN = 20  # failures in the sentence; the manifest has all


class UnitsFailed(RunFailure):
    """Some units of a campaign failed, the others are kept; `failures` has a line for each, `summary` one sentence."""

    def __init__(self, failed: Mapping[str, str], total: int, out: Path) -> None:
        self.failures = [f"{name}: {why.rstrip('.')}" for name, why in failed.items()]
        self.summary = f"{len(self.failures)} of {total} units failed: {'; '.join(self.failures[:SHOWN])}."
        listed = [f"\n  {line}" for line in self.failures[:SHOWN]]
        if len(self.failures) > SHOWN:
            listed.append(f"\n  and {len(self.failures) - SHOWN} more, which {out / 'manifest.json'} lists")
        super().__init__(
            f"{len(self.failures)} of {total} units failed; the results of the others are kept in {out}."
            f"{''.join(listed)}\nExactly these run again by: {retry()}"
        )


def retry() -> str:
    """Return the command line of this process as it can be given again."""
    program = Path(sys.argv[0]).name
    if program not in ("mcaprobe", "__main__.py"):
        return "the same call with the same run directory"
    name = "mcaprobe" if program == "mcaprobe" else "python -m mcaprobe"
    return f"{name} {shlex.join(sys.argv[1:])}"
