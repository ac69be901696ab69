"""How does a folder reach a run directory whole? Filled under a temporary name, sealed with hashes, renamed once."""

import errno
import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcaprobe.errors import RunFailure
from mcaprobe.storage import TEMPORARY, DamagedFile, flush_folder, read_json, write_json

_FULL = (errno.ENOSPC, errno.EDQUOT)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `index.json` into a folder: `about`, and the size and SHA-256 of each file below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "index.json")
    listing = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files
    }
    write_json(folder / "index.json", {**about, "files": listing})


def verify(folder: Path) -> dict[str, Any]:
    """Return the index of a sealed folder; raise DamagedFile where a file is missing, short or has other bytes."""
    index = read_json(folder / "index.json")
    if not isinstance(index, dict) or not isinstance(index.get("files"), dict):
        raise DamagedFile(f"{folder / 'index.json'} lists no files")
    for name, expected in index["files"].items():
        path = folder / name
        if not path.is_file():
            raise DamagedFile(f"{path} is missing")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise DamagedFile(f"{path} has {size} bytes instead of {expected['bytes']}")
        if file_hash(path) != expected["sha256"]:
            raise DamagedFile(f"{path} has other contents than were written")
    return index


@contextmanager
def filling(parent: Path, name: str) -> Iterator[Path]:
    """Make an empty folder under a temporary name that `commit` can rename to `parent / name`; behind it, it is gone.

    Whatever ends the block, Ctrl-C within the making included, leaves no temporary folder.
    """
    folder = parent / f"{TEMPORARY}{os.getpid()}-{name}"
    try:
        remove(folder)
        folder.mkdir(parents=True)
        yield folder
    finally:
        remove(folder)


def mine(name: str) -> str:
    """Return a name for `filling` that no other worker has, on this machine or another that shares the disk."""
    return f"{socket.gethostname()}-{threading.get_ident()}-{name}"


def claim(folder: Path, final: Path) -> bool:
    """Rename a filled folder to `final`, unless that is there already; return whether it was renamed.

    The file system decides: of two that claim a name at once, one gets it.
    """
    flush_folder(folder)
    try:
        os.rename(folder, final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    flush_folder(final.parent)
    return True


def commit(folder: Path, final: Path) -> None:
    """Rename a filled folder or file into place, replacing what is there; the disk has it afterwards."""
    if folder.is_dir():
        flush_folder(folder)
        if final.is_dir():
            remove(final)
    os.replace(folder, final)
    flush_folder(final.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder with what it holds; nothing happens when it does not exist.

    A folder is renamed to a temporary name first, so that a process killed in the middle leaves no half of it.
    """
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(TEMPORARY):
            doomed = path.with_name(f"{TEMPORARY}{os.getpid()}-removed-{path.name}")
            os.replace(path, doomed)
            path = doomed
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary names that a killed process left in `folder`."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(TEMPORARY):
                try:
                    remove(path)
                except OSError as error:  # a worker that lives on still fills it
                    if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                        raise


@contextmanager
def disk_errors(folder: Path, advice: Callable[[], str]) -> Iterator[None]:
    """Turn a full disk, an exceeded quota or a refused write below `folder` into a RunFailure of one sentence.

    Args:
        advice: Called for the second half of the sentence: what is kept and what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunFailure(f"The disk of {folder} is full ({error.strerror}): {advice()}") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            what = error.filename or folder
            raise RunFailure(f"Cannot write {what} ({error.strerror}): {advice()}") from error
        raise
