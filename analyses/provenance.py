"""Where, when and with what was a result made?"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from analyses.paths import ROOT
from mcaprobe.manifest import processor

CODE = ("analyses", ":(exclude)analyses/results", "mcaprobe", "nanops", "native", "setup.py")
PACKAGES = ("torch", "numpy", "scipy", "nibabel", "nilearn", "safetensors", "torchmetrics")


def stamp() -> dict[str, Any]:
    """Return where, when and with what the running command makes a result: what each manifest says of it."""
    return {
        "command": "python -m analyses " + shlex.join(sys.argv[1:]), "date": now(), "commit": commit(),
        "machine": machine(), "versions": versions(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Return the version of Python and of each package that a result depends on; "absent" where it is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, str | int]:
    """Return the processor, the number of its cores that we may use, and the vector instructions torch uses."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "vector": torch.backends.cpu.get_cpu_capability(),
    }


def commit() -> str:
    """Return the commit of the working tree, "+changes" where code differs from it (not results), or "unknown"."""
    try:
        head = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", *CODE],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
