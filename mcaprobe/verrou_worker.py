"""One run of a model in a process of its own, perturbed by the Verrou around it during the forward pass only.

usage: python -m mcaprobe.verrou_worker FOLDER RUN

FOLDER holds the job (sample_files.py); RUN is `reference`, `again` or the number of a sample, and names the files that
the run leaves. Only what the run needs is imported: under Valgrind an import takes ten times as long.
"""

import builtins
import ctypes
import errno
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError
from mcaprobe.models import load_model
from mcaprobe.recorder import record
from mcaprobe.sample_files import DISK_FULL, INPUT, JOB, MODEL_FAILED, PROTOCOL, Proof, layers_file, proof_file
from mcaprobe.storage import read_json, read_tensors, write_json, write_tensors

BINDING = "verrouCBinding.so"
DIE = 1  # prctl's PR_SET_PDEATHSIG
WRAP = 2**32  # Verrou hands its count out in 32 bits


class Instrumentation:
    """Verrou's switch and its counter; without Verrou nothing happens and the count stays 0."""

    def __init__(self) -> None:
        path = binding()
        self._library = None if path is None else ctypes.CDLL(str(path))
        self._before = 0
        self.counted = 0
        self.active = False

    def on(self) -> None:
        """Perturb from here."""
        self.active = True
        if self._library is not None:
            self._before = self._read()
            self._library.c_verrou_start_soft_instrumentation()

    def off(self) -> None:
        """Perturb no more; add what was counted since `on`, of which there are fewer than 2^32."""
        self.active = False
        if self._library is not None:
            self._library.c_verrou_stop_soft_instrumentation()
            self.counted += (self._read() - self._before) % WRAP

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Perturb nothing inside."""
        self.off()
        try:
            yield
        finally:
            self.on()

    def _read(self) -> int:
        if self._library is None:
            return 0
        self._library.c_verrou_count_fp_instrumented.restype = ctypes.c_uint
        return int(self._library.c_verrou_count_fp_instrumented())


@contextmanager
def imports_unperturbed(switch: Instrumentation) -> Iterator[None]:
    """Import unperturbed what the model imports in its forward pass: torch loads hundreds of modules there, once."""
    plain = builtins.__import__

    def imported(name: str, *rest: Any, **more: Any) -> Any:
        if not switch.active or name in sys.modules:
            return plain(name, *rest, **more)
        switch.off()
        try:
            return plain(name, *rest, **more)
        finally:
            switch.on()

    builtins.__import__ = imported
    try:
        yield
    finally:
        builtins.__import__ = plain


def binding() -> Path | None:
    """Return the library of Verrou's switches, which lies beside what Valgrind preloads; None without Verrou."""
    for preloaded in os.environ.get("LD_PRELOAD", "").split(":"):
        path = Path(preloaded).parent / BINDING
        if Path(preloaded).name.startswith("vgpreload_") and path.is_file():
            return path
    return None


def run(folder: Path, name: str) -> None:
    """Run the job of a folder once and leave the layers and the proof."""
    job = read_json(folder / JOB)
    if job["protocol"] != PROTOCOL:
        raise InputError(f"Expected a job of protocol {PROTOCOL}, got {job['protocol']}: mcaprobe here is another.")
    torch.set_num_threads(1)
    model = load_model(job["model"])
    if model.sha256 != job["model_sha256"]:
        raise InputError(
            f"The model {job['model']} has other parameters in each process: let it load them, or seed them."
        )
    x = read_tensors(folder / INPUT)["input"]
    switch = Instrumentation()
    start = time.perf_counter()
    layers, recorded, y = forward(model.module, x, job["layers"], job["seed"], switch)
    seconds = time.perf_counter() - start
    proof = Proof(
        identity=job["identity"],
        counted=switch.counted,
        threads=torch.get_num_threads(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        versions=versions(),
        layers=recorded.operators,
        aliases=recorded.aliases,
        seconds=seconds,
        metrics=metrics_of(job["metrics"], y),
        sha256=write_tensors(layers_file(folder, name), layers),
    )
    write_json(proof_file(folder, name), proof.as_dict())


def forward(
    model: nn.Module, x: Tensor, globs: Sequence[str], seed: int, switch: Instrumentation
) -> tuple[dict[str, Tensor], Any, Any]:
    """Return the recorded layers, what the recorder says of them, and the output of one instrumented forward pass."""
    layers: dict[str, Tensor] = {}

    def take(name: str, operator: str, tensor: Tensor) -> None:
        layers[name] = tensor.detach().clone(memory_format=torch.contiguous_format)

    torch.backends.mha.set_fastpath_enabled(False)  # attention by its parts, as the emulator records it
    recording = record(model, layers=globs, sink=take, pause=switch.paused)
    with torch.no_grad(), recording as recorded, imports_unperturbed(switch):
        torch.manual_seed(seed)
        switch.on()
        try:
            y = model(x)
        finally:
            switch.off()
    return layers, recorded, y


def metrics_of(specs: Sequence[str], y: Any) -> dict[str, float]:
    """Return each metric of the output."""
    if not specs:
        return {}
    from mcaprobe.metrics import evaluate, load_metric

    return evaluate([load_metric(spec) for spec in specs], y)


def versions() -> dict[str, str]:
    """Return the versions of Python, torch, numpy and mcaprobe."""
    try:
        own = version("mcaprobe")
    except PackageNotFoundError:
        own = "not installed"
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__,
            "mcaprobe": own}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once; what goes wrong is one line on the error stream and an exit code."""
    folder, name = sys.argv[1:] if arguments is None else arguments
    ctypes.CDLL(None).prctl(DIE, signal.SIGKILL)  # a campaign that is killed leaves no runs behind
    try:
        run(Path(folder), name)
    except Exception as error:  # whatever the user's model raises
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        first = (str(error).splitlines() or [""])[0]
        print(first if isinstance(error, InputError) else f"{type(error).__name__}: {first}", file=sys.stderr)
        return DISK_FULL if full else MODEL_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
