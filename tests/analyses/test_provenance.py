"""Does the commit of a manifest say that the code is changed where it is, and only there?"""

import subprocess
from pathlib import Path

import pytest

from analyses import provenance


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", str(folder), *name, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("changed", "marked"),
    [("analyses/run.py", True), ("nanops/a/b.cpp", True), ("analyses/results/rows.csv", False), ("README.md", False)],
)
def test_changed_code_is_told_and_new_results_are_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, marked: bool
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"
    file = tmp_path / changed
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit() == head
    file.write_text("2")
    assert provenance.commit() == (f"{head}+changes" if marked else head)
