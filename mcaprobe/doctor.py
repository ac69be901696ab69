"""What can this machine run, and what would mend what it cannot?"""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from mcaprobe.container import IMAGES
from mcaprobe.launchers import PROBE, absence, ask
from mcaprobe.verrou import APPTAINER, DOCKER, NATIVE, PODMAN, Verrou

ENOUGH_DISK, ENOUGH_MEMORY = 10 * 2**30, 4 * 2**30
_LEVELS = (("AVX-512", "avx512f"), ("AVX2", "avx2"), ("AVX", "avx"), ("SSE4.2", "sse4_2"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is as it should be, what was found, and the remedy where it is not."""

    name: str
    good: bool
    found: str
    remedy: str = ""


def examine(folder: Path) -> list[Finding]:
    """Return the findings; `folder` is on the disk that runs would be written to. Nothing is changed."""
    engines = [finding for launcher in (DOCKER, PODMAN, APPTAINER) for finding in _engine(launcher)]
    return [_verrou(), *engines, _instructions(), *_torch(), _disk(folder), _memory(), _gpu()]


def _verrou() -> Finding:
    code, answer = ask([*PROBE[:1], "--version"])
    if code:
        return Finding("Valgrind", False, "not on PATH", "install Verrou (a Valgrind with it) and source its env.sh")
    why = absence(Verrou(launcher=NATIVE), NATIVE)
    if why is not None:
        return Finding("Verrou", False, f"{answer} has no tool verrou", "put a Valgrind with Verrou first on PATH")
    return Finding("Verrou", True, f"{answer}, with the tool verrou")


def _engine(launcher: str) -> list[Finding]:
    code, answer = ask([launcher, "--version"])
    if code == 127:
        return [Finding(launcher, False, "not on PATH", f"install {launcher}, if samples shall run in an image")]
    if code:
        return [Finding(launcher, False, answer, f"let `{launcher} --version` answer")]
    if launcher != APPTAINER:
        code, refusal = ask([launcher, "version"])
        if code:
            return [Finding(launcher, False, f"{answer}: {refusal}", f"let `{launcher} version` answer")]
    why = absence(Verrou(launcher=launcher), launcher)
    image = IMAGES[launcher]
    if why is not None:
        missing = Finding(f"{launcher} image", False, f"no {image}", "build it from docker/, or use --image")
        return [Finding(launcher, True, answer), missing]
    return [Finding(launcher, True, answer), Finding(f"{launcher} image", True, image)]


def _instructions() -> Finding:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return Finding("processor", False, platform.machine(), "run on Linux, whose /proc/cpuinfo tells")
    level = next((name for name, flag in _LEVELS if flag in flags), platform.machine())
    note = " (AVX2 at most under Valgrind)" if level == "AVX-512" else ""
    good = "avx2" in flags
    return Finding("processor", good, level + note, "" if good else "the route exact needs AVX2: use --route model")


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding("torch", False, str(error), "pip install torch")]
    from mcaprobe import kernels

    findings = [Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads, "
                        f"{torch.backends.cpu.get_cpu_capability()}")]  # fmt: skip
    if kernels.library() is None:
        remedy = "install a C++ compiler with OpenMP and mcaprobe again; the route model needs none"
        return [*findings, Finding("kernels", False, str(kernels.absence()), remedy)]
    return [*findings, Finding("kernels", True, "compiled: route exact")]


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    good = free >= ENOUGH_DISK
    return Finding("disk", good, f"{_gib(free)} free in {folder.resolve()}", "" if good else "free space, or use --out")


def _memory() -> Finding:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        free = int(next(line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    good = free >= ENOUGH_MEMORY
    return Finding("memory", good, f"{_gib(free)} free", "" if good else "end other programs, or lower --jobs")


def _gpu() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            return Finding("GPU", True, torch.cuda.get_device_name(0))
    except ImportError:
        pass
    return Finding("GPU", False, "none that torch sees", "none is needed: campaigns run on the processor")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
