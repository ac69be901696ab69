"""Where are the real inputs that tests may use, when they are there?"""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """Return the path of a shared data file, or skip the test that asked for it."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"shared data {name} is not present")
    return path
