"""Where do the networks that were trained here lie, and how are they loaded?"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from analyses.models.checkpoint import load_network, read_tensors
from analyses.models.mnist import MnistNet
from analyses.models.published import fit, load_checkpoint
from analyses.paths import CACHE
from analyses.training.digits import SmallXception
from mcaprobe.errors import InputError

DENOISER = CACHE / "denoiser.safetensors"


def structures_path(plane: str) -> Path:
    """Return where the network of a plane lies."""
    return CACHE / f"structures_{plane}.safetensors"


def digits_path(network: str) -> Path:
    """Return where a digit classifier lies."""
    return CACHE / f"{network}.safetensors"


def load_structures(plane: str) -> tuple[nn.Module, Path]:
    """Return the network of a plane, in eval mode, and its file; InputError with the command that makes it."""
    path = present(structures_path(plane), f"structures --plane {plane}")
    return load_network(path)[0], path


def load_denoiser() -> tuple[nn.Module, Path]:
    """Return the denoiser, in eval mode, and its file; InputError with the command that makes it."""
    path = present(DENOISER, "denoiser")
    return load_checkpoint(path), path


def load_digits_network(network: str, pool_first: bool = False) -> tuple[nn.Module, Path]:
    """Return a digit classifier, in eval mode, and its file; InputError with the command that makes it."""
    path = present(digits_path(network), network)
    found = SmallXception() if network == "separable" else MnistNet(pool_first)
    fit(found, read_tensors(path)[0], str(path))
    return found.eval(), path


def present(path: Path, task: str) -> Path:
    """Return the path of a checkpoint; InputError with the command that makes it where it is not there."""
    if not path.is_file():
        raise InputError(f"Expected a trained network at {path}: `python -m analyses train {task}` makes it.")
    return path


def record(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its training."""
    found: dict[str, Any] = json.loads(read_tensors(path)[1].get("training", "{}"))
    return found
