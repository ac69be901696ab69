"""Which Verrou goes into the image? A release that was built elsewhere, unpacked only where its sha256 is as stated.

usage: get_verrou.py --local FOLDER --into FOLDER --sha256 SUM [--url ADDRESS]

Without an address it is the one tarball verrou*.tar.* in the local folder. A refusal is one sentence and exit code 1.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

ZSTANDARD = "zstandard==0.25.0"  # for a .tar.zst: Python reads those from 3.14 on
NEEDED = ("bin/valgrind", "libexec/valgrind/verrou-*-linux", "libexec/valgrind/verrouCBinding.so")


class Refused(Exception):
    """What stops the build, in one sentence."""


def find(local: Path, url: str, folder: Path) -> Path:
    """Return the tarball: the one at `url`, downloaded into `folder`, or the one that lies in `local`."""
    if url:
        path = folder / (url.rstrip("/").rpartition("/")[2] or "verrou.tar")
        try:
            with urllib.request.urlopen(url) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
        except (OSError, ValueError) as error:
            raise Refused(f"Verrou cannot be had from {url}: {error}.") from error
        return path
    found = sorted(p for p in local.glob("verrou*.tar*") if p.suffix not in (".sha256", ".asc"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise Refused(f"Expected VERROU_URL, or one tarball verrou*.tar.* in docker/local, found {names} there.")
    return found[0]


def check(path: Path, sha256: str) -> None:
    """Raise Refused where the tarball is not the one whose sha256 is stated."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise Refused(f"Expected the sha256 of {path.name} as VERROU_SHA256, 64 hexadecimal digits, got {sha256!r}.")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise Refused(
            f"The sha256 of {path.name} is {found}, VERROU_SHA256 is {sha256}: another file, nothing was unpacked."
        )


def unpack(path: Path, into: Path, local: Path, folder: Path) -> None:
    """Unpack all but the libraries to link against; raise Refused where it is no Valgrind with Verrou."""
    safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with _plain(path, local, folder) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                if not member.name.endswith(".a"):
                    archive.extract(member, into, **safe)
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"{path.name} is no tarball that can be read: {error}.") from error
    for pattern in NEEDED:
        if not list(into.glob(pattern)):
            raise Refused(f"{path.name} is no release of Verrou: it has no {pattern} at its top.")


def _plain(path: Path, local: Path, folder: Path) -> IO[bytes]:
    """Return the stream that tarfile reads: the file, or what Zstandard makes of it."""
    if path.suffix != ".zst":
        return path.open("rb")
    try:
        import zstandard
    except ImportError:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*install, "--find-links", str(local), "--target", str(folder / "tools"), ZSTANDARD]
        if subprocess.run(command).returncode:
            raise Refused(f"{path.name} needs {ZSTANDARD}: put its wheel into docker/local, or repack it.") from None
        sys.path.insert(0, str(folder / "tools"))
        import zstandard
    return zstandard.open(path, "rb")  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, get, say what was taken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--local", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--url", default="")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        try:
            path = find(options.local, options.url, Path(name))
            check(path, options.sha256)
            unpack(path, options.into, options.local, Path(name))
        except Refused as error:
            print(f"get_verrou: {error}", file=sys.stderr)
            return 1
        print(f"Verrou from {path.name}, sha256 {options.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
