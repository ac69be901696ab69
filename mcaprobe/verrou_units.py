"""How does a worker run one sample under Verrou? By the launcher that is where the worker is, its files in the folder.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from mcaprobe.errors import InputError, RunFailure
from mcaprobe.launchers import choose, launch
from mcaprobe.processes import Processes
from mcaprobe.sample_files import DISK_FULL, MODEL_FAILED, last_lines, log_file
from mcaprobe.verrou import Verrou


@dataclass(frozen=True)
class RunUnit:
    """One run of a campaign under Verrou: a baseline or a sample.

    Attributes:
        mode, seed: The campaign's.
        run: Its name.
        folder: Of the runs, with the job, absolute, on a disk that all workers see.
        here: Current folder of the driver, from which the model is imported.
    """

    options: Verrou
    mode: str
    seed: int
    run: str
    folder: Path
    here: Path


def run_one(unit: RunUnit) -> None:
    """Run it in a process under Verrou, here or in an image, and wait for it; its proof appears last.

    Raises:
        InputError: the launcher is not where this worker is.
        RunFailure: the process ended without its proof; with an OSError as its cause where another try may succeed.
    """
    try:
        launcher = choose(unit.options)
    except InputError as error:
        raise InputError(f"On {socket.gethostname()}: {error}") from error
    launched = replace(
        launch(unit.options, launcher, unit.mode, unit.seed, unit.run, unit.folder, unit.here), folder=unit.here
    )
    with Processes() as processes:
        processes.start(unit.run, launched, log_file(unit.folder, unit.run))
        _, code = processes.next()
    if code:
        lost = None if code == MODEL_FAILED else OSError(f"exit code {code}")
        raise RunFailure(ended(unit.folder, unit.run, code)) from lost


def ended(folder: Path, run: str, code: int) -> str:
    """Return how a run ended, and the end of its log, as a sentence without a full stop."""
    if code == DISK_FULL:
        return f"the disk of {folder} is full"
    lines = last_lines(folder, run)
    tail = f"ends: {lines[-1]}" if lines else "is empty"
    return f"its process {how(code)} on {socket.gethostname()}; its log {log_file(folder, run)} {tail}"


def how(code: int) -> str:
    """Return how a process ended that left no proof, as the verb of a sentence."""
    if code == 0:
        return "ended without its layers"
    return f"was ended by the signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
