"""Who writes a run directory now?"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcaprobe.errors import InputError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory for one block.

    The lock is the kernel's (flock on the file `.lock`, which names the process for the reader), so the lock of a
    process that died, however it died, is free: the next process takes it over.

    Raises:
        InputError: another living process writes the directory (the sentence names it), or it cannot be written.
    """
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"Cannot write in {folder}: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise InputError(
                f"Another process writes {folder} now ({_who(holder)}): wait for it, or choose another --out."
            ) from error
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # its holder removed the file between our open and our lock
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _who(holder: bytes) -> str:
    try:
        about = json.loads(holder)
        return f"process {about['process']} on {about['host']}"
    except (ValueError, KeyError, TypeError):
        return "its lock is held"
