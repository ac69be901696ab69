"""How do several runs go at once, each a process with its log, and how do they end with the campaign?"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from mcaprobe.errors import InputError
from mcaprobe.launchers import Launch

POLL = 0.02  # seconds between two looks
GRACE = 10.0  # seconds that an engine gets to stop its container


class Processes:
    """The processes that run now; leaving the block ends those that are left."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, run: str, launch: Launch, log: Path) -> None:
        """Start a run; what it prints goes to its log, from the beginning."""
        self._running[run] = spawn(launch, log)

    def next(self) -> tuple[str, int]:
        """Wait until a run ends; return its name and its exit code, negative for a signal."""
        while True:
            for run, process in self._running.items():
                code = process.poll()
                if code is not None:
                    del self._running[run]
                    return run, code
            time.sleep(POLL)


def spawn(launch: Launch, log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own; what it prints goes to `log`."""
    try:
        with log.open("wb") as file:
            return subprocess.Popen(
                launch.command, env=launch.environment, cwd=launch.folder, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"Cannot start {launch.command[0]}: {error.strerror}.") from error


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
