"""What do the process of one run and the campaign that started it tell each other? Files of one folder.

job.json            what to run: model, layers, seed, metrics, the identity of the campaign
input.safetensors   the input tensor
<run>.log           what the process printed
<run>.safetensors   its layers
<run>.json          its proof; it appears last, so that what it names is whole
"""

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mcaprobe.folders import file_hash
from mcaprobe.storage import DamagedFile, read_json

PROTOCOL = 1
JOB, INPUT = "job.json", "input.safetensors"
# Exit codes of a run's process.
MODEL_FAILED, DISK_FULL = 4, 28


@dataclass(frozen=True)
class Proof:
    """What a run tells beside its layers.

    Attributes:
        identity: That of the job.
        counted: Instrumented floating-point operations of the forward pass.
        threads: torch's threads after it.
        instruction_set: What torch dispatched to.
        versions: Of Python, torch, numpy and mcaprobe.
        layers: Operator of each layer, in execution order.
        aliases: Names that stand for the same tensor as another layer.
        metrics: Values of the metrics.
        seconds: Wall clock of the forward pass.
        sha256: Of the file of layers.
    """

    identity: str
    counted: int
    threads: int
    instruction_set: str
    versions: dict[str, str]
    layers: dict[str, str]
    aliases: dict[str, str]
    seconds: float
    sha256: str
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: int = PROTOCOL

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def layers_file(folder: Path, run: str) -> Path:
    """Return where a run's layers are."""
    return folder / f"{run}.safetensors"


def proof_file(folder: Path, run: str) -> Path:
    """Return where a run's proof is."""
    return folder / f"{run}.json"


def log_file(folder: Path, run: str) -> Path:
    """Return where what a run printed is."""
    return folder / f"{run}.log"


def read_proof(folder: Path, run: str, whole: bool = True) -> Proof:
    """Return the proof of a finished run.

    Args:
        whole: Compare the file of layers with its hash.
    Raises:
        DamagedFile: there is none, or the files are not what the run wrote.
    """
    stored = read_json(proof_file(folder, run))
    names = {f.name for f in fields(Proof)}
    if not isinstance(stored, dict) or set(stored) != names or stored["protocol"] != PROTOCOL:
        raise DamagedFile(f"{proof_file(folder, run)} is not a proof of this version of mcaprobe")
    proof = Proof(**{**stored, "metrics": {name: float(value) for name, value in stored["metrics"].items()}})
    path = layers_file(folder, run)
    if whole and not (path.is_file() and file_hash(path) == proof.sha256):
        raise DamagedFile(f"{path} is missing or has other contents than were written")
    return proof


def forget(folder: Path, run: str) -> None:
    """Remove a run, its proof first; the log stays."""
    proof_file(folder, run).unlink(missing_ok=True)
    layers_file(folder, run).unlink(missing_ok=True)


def last_lines(folder: Path, run: str, count: int = 5) -> list[str]:
    """Return the last lines that a run printed; those of Valgrind, which has the last word, if there are no others."""
    try:
        text = log_file(folder, run).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ([line for line in lines if not re.match(r"==\d+==", line)] or lines)[-count:]
