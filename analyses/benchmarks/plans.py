"""How far is `mcaprobe plan` from the truth? Campaigns are predicted, then really run, time, memory and disk beside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyses import provenance
from analyses.experiments.counting import Tables
from analyses.kept import PARTS, Kept
from analyses.paths import ROOT
from mcaprobe.errors import RunFailure

BOUND = 0.25  # largest accepted |predicted - measured| / measured
QUANTITIES = ("seconds", "memory", "disk")
COLUMNS = ("case", "arguments", "quantity", "unit", "predicted", "measured", "error", "bound", "met", "plan_seconds")
UNITS = {"seconds": "s", "memory": "bytes", "disk": "bytes"}
LOOK_EVERY = 0.05  # seconds between two looks at the memory of the processes


@dataclass(frozen=True, slots=True)
class Case:
    """A campaign that is predicted and run.

    Args:
        plan: Options that only `mcaprobe plan` has; `run`: those that only `mcaprobe run` has.
        both: Model, input and the options of both.
    """

    name: str
    both: tuple[str, ...]
    plan: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


TWO_WORKERS = ("--workers", "2", "--executor", "processes")
VOLUME_NET = "analyses.benchmarks.plans:volume_network"
CASES = (
    Case("one slice, n = 20", ("demo", "mni152", "--samples", "20", "--threads", "1")),
    Case("4 slices, n = 10, 2 workers", ("demo", "mni152", "--slices", "88:92", "--samples", "10", *TWO_WORKERS)),
    Case("one slice, n = 20, 2 workers", ("demo", "mni152", "--samples", "20", *TWO_WORKERS)),
    Case("3-D patches, n = 10", (VOLUME_NET, "mni152", "--voxel-size", "3", "--patches", "32",
                                 "--samples", "10", "--threads", "1")),
)


def volume_network() -> Any:
    """Return a small three-dimensional network with weights of a fixed seed."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv3d(8, 2, 1),
        ).eval()  # fmt: skip


def predicted(case: Case) -> tuple[dict[str, Any], float]:
    """Return the forecast of a case as `mcaprobe plan --json` prints it, and the seconds that it took."""
    command = [sys.executable, "-m", "mcaprobe", "plan", *case.both, *case.plan, "--json"]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RunFailure(f"mcaprobe plan of {case.name} ended with {done.returncode}: {_last(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found, time.monotonic() - start


def measured(case: Case) -> dict[str, float]:
    """Run a case in a process of its own; return its seconds, the peak of all its processes and its bytes of disk."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "mcaprobe", "run", *case.both, *case.run, "--out", str(out), "--quiet"]
        with tempfile.TemporaryFile("w+") as errors:
            start = time.monotonic()
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, text=True)
            memory = watched(process)
            seconds = time.monotonic() - start
            if process.returncode:
                errors.seek(0)
                raise RunFailure(f"mcaprobe run of {case.name} ended with {process.returncode}: {_last(errors.read())}")
        disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"seconds": seconds, "memory": float(memory), "disk": float(disk)}


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]


def watched(process: subprocess.Popen[str]) -> int:
    """Wait for a process; return the largest sum of the resident memory of it and all its descendants, in bytes."""
    most = 0
    while process.poll() is None:
        most = max(most, sum(resident(pid) for pid in descendants(process.pid)))
        time.sleep(LOOK_EVERY)
    return most


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started and that still run."""
    found = [pid]
    for one in found:  # grows while it is walked
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return found


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def rows_of(case: Case, forecast: dict[str, Any], truth: dict[str, float], seconds: float) -> list[dict[str, Any]]:
    """Return a row for each quantity, with its error relative to the measured value and whether it is within BOUND."""
    rows = []
    for name in QUANTITIES:
        error = (forecast[name] - truth[name]) / truth[name]
        rows.append({
            "case": case.name, "arguments": " ".join(case.both), "quantity": name, "unit": UNITS[name],
            "predicted": float(forecast[name]), "measured": truth[name], "error": error, "bound": BOUND,
            "met": abs(error) <= BOUND, "plan_seconds": seconds,
        })  # fmt: skip
    return rows


def run(
    progress: Callable[[str], None] = lambda _: None, cases: Sequence[Case] = CASES, folder: Path = PARTS
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Predict and run each case; return the rows, and what each forecast says it was measured from.

    A case that is finished is kept for the next call at the same commit, until `forget` is called.
    """
    rows: list[dict[str, Any]] = []
    said: dict[str, Any] = {}
    kept = _kept(cases, folder)
    for i, case in enumerate(cases):

        def both(case: Case = case) -> Tables:
            progress(f"{case.name}: plan")
            forecast, seconds = predicted(case)
            progress(f"{case.name}: run")
            about = {name: forecast[name] for name in ("measured", "extrapolated", "shorts", "costs")}
            return {"rows": rows_of(case, forecast, measured(case), seconds), "said": [about]}

        found = kept.part(f"case-{i}", both)
        rows += found["rows"]
        (said[case.name],) = found["said"]
    return rows, said


def forget(cases: Sequence[Case] = CASES, folder: Path = PARTS) -> None:
    """Remove the finished cases that are kept, so that the next call measures anew."""
    shutil.rmtree(_kept(cases, folder).folder, ignore_errors=True)


def _kept(cases: Sequence[Case], folder: Path) -> Kept:
    return Kept("plan", {"cases": [asdict(case) for case in cases], "commit": provenance.commit()}, folder)
