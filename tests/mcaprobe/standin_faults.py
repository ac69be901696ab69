"""What goes wrong in one run of a stand-in? STANDIN_FAULT is `<fault>:<run>`, acted out in that run's process."""

import errno
import os
import signal
import time
from collections.abc import Mapping

import torch


def act(environment: Mapping[str, str], run: str) -> None:
    """Act out the fault of this run, if it has one."""
    fault, _, where = environment.get("STANDIN_FAULT", "").partition(":")
    if where == run:
        FAULTS[fault]()


def _die() -> None:
    print("something was wrong\nand this is the last line", flush=True)
    os._exit(7)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _full() -> None:
    from mcaprobe import storage

    def full(path: object, parts: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage._write = full  # type: ignore[assignment]


def _silent() -> None:
    os._exit(0)


def _uncounted() -> None:
    os.environ["STANDIN_COUNT"] = "none"


def _without() -> None:
    os.environ["LD_PRELOAD"] = ""


def _other_rounding() -> None:
    os.environ["STANDIN_MODE"] = "random"


def _other_instructions() -> None:
    torch.backends.cpu.get_cpu_capability = lambda: "OTHER"  # type: ignore[assignment]


def _other_software() -> None:
    from mcaprobe import verrou_worker

    true = verrou_worker.versions()
    verrou_worker.versions = lambda: true | {"torch": "0.0"}


def _slow() -> None:
    time.sleep(0.7)


def _hang() -> None:
    time.sleep(600)


FAULTS = {
    "die": _die,
    "killed": _killed,
    "full": _full,
    "silent": _silent,
    "uncounted": _uncounted,
    "without": _without,
    "other_rounding": _other_rounding,
    "other_instructions": _other_instructions,
    "other_software": _other_software,
    "slow": _slow,
    "hang": _hang,
}
