"""How much memory does a run take at most, and how long? Each is run alone, in a fresh process (`python -m` this)."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import mcaprobe
from analyses.paths import ROOT
from mcaprobe.errors import RunFailure
from mcaprobe.loading import load_input
from mcaprobe.memory import peak_memory
from mcaprobe.models import load_model


@dataclass(frozen=True, slots=True)
class Job:
    """A campaign that records every layer, or, where `route` is "", as many stock forwards as there are samples.

    Args:
        network, x: Texts that name the model and the input, as on the command line.
        folder: Whether the campaign writes a run directory (a temporary one); else its products stay in memory.
        memory: What the campaign may take, as `--memory` has it; "" for half of what is free.
    """

    network: str
    x: str
    route: str
    mode: str
    samples: int
    threads: int
    seed: int = 0
    folder: bool = False
    memory: str = ""


def peak(job: Job) -> dict[str, Any]:
    """Return the job's `seconds`, `peak` in bytes and `layers`, from a process of its own.

    Raises:
        RunFailure: the process ended with an error; the sentence is its last line.
    """
    command = [sys.executable, "-m", "analyses.benchmarks.peak", json.dumps(asdict(job))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunFailure(f"The process of {job.network} ({job.route or 'stock'}) ended: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(job: Job) -> dict[str, Any]:
    """Do the job in this process; seconds of stock are those of the forwards alone."""
    torch.set_num_threads(job.threads)
    model = load_model(job.network).module
    seconds, layers = _campaign(job, model) if job.route else (_stock(job, model), 0)
    return {"seconds": seconds, "peak": peak_memory("cpu"), "layers": layers}


def _stock(job: Job, model: torch.nn.Module) -> float:
    x = load_input(job.x, model, {}).tensor
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        model(x)
        start = time.perf_counter()
        for _ in range(job.samples):
            model(x)
        return time.perf_counter() - start


def _campaign(job: Job, model: torch.nn.Module) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = mcaprobe.run(
            model, job.x, samples=job.samples, mode=job.mode, seed=job.seed, route=job.route, threads=job.threads,
            layers="*", keep_moments=(), out=Path(folder) / "run" if job.folder else None, memory=job.memory or None,
        )  # fmt: skip
        return time.perf_counter() - start, len(result.layers)


if __name__ == "__main__":
    print(json.dumps(work(Job(**json.loads(sys.argv[1])))))
