"""On what, with what, and how did a run take place? The manifest beside every result."""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch

from mcaprobe.errors import InputError
from mcaprobe.loading import Input
from mcaprobe.metrics import Metric
from mcaprobe.models import Model
from mcaprobe.segmentation import regions_hash
from mcaprobe.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
# The parts of a manifest that may differ between two runs of the same bits.
CLOCKWORK = ("times", "memory", "disk", "machine", "chunks", "threads", "notes", "failures", "disturbed")


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python, torch, numpy and mcaprobe."""
    try:
        own = version("mcaprobe")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "mcaprobe": own,
    }


@cache
def commit() -> str | None:
    """Return the git commit of this source tree, with `+changes` where files differ; None without git."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "."],
            cwd=folder, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def machine(device: str) -> dict[str, Any]:
    """Return what the hardware is: processor, cores, memory, torch's instruction set, and the device."""
    about: dict[str, Any] = {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
    }
    if torch.device(device).type == "cuda":
        about["device_name"] = torch.cuda.get_device_name(device)
    return about


def processor() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def identity(settings: Settings, model: Model, x: Input, metrics: list[Metric]) -> dict[str, Any]:
    """Return all that the bits of the results depend on; results of another identity are refused."""
    options = {} if x.options is None else {f"input {k}": _plain(v) for k, v in _fields(x.options).items()}
    if x.segmentation is not None:
        options |= {"segmentation": x.segmentation, "regions sha256": _regions_hash(x)}
    if x.whole is not None:
        options["input pieces"] = x.whole.identity()
    return {
        **settings.identity(),
        "model": model.spec,
        "input": x.name,
        **options,
        "input sha256": x.sha256,
        "model sha256": model.sha256,
        "metrics": [metric.spec for metric in metrics],
        # Under Verrou the proof of each run has its own, which must be the same in all.
        "instruction set": None if settings.verrou else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "mcaprobe": versions()["mcaprobe"],
    }


def _regions_hash(x: Input) -> str:
    labels = None if x.whole is None else x.whole.labels
    return regions_hash(x.regions) if labels is None else labels.sha256


def identity_text(identity: Mapping[str, Any]) -> str:
    """Return an identity as text of which a hash can be taken."""
    return json.dumps(identity, sort_keys=True)


def _fields(options: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in type(options).__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def expect_same(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise InputError, with the first setting that differs, when a directory holds another run."""
    for name in [*asked, *(key for key in stored if key not in asked)]:
        if stored.get(name) != asked.get(name):
            raise InputError(
                f"{folder} holds another run: its {name} is {stored.get(name)!r}, here it is {asked.get(name)!r}. "
                "Choose another --out, or start it again with --overwrite."
            )


def command() -> list[str]:
    """Return the command line of this process."""
    return list(sys.argv)
