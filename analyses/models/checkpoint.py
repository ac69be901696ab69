"""A network in one safetensors file: weights, hyperparameters and how it came about. No pickle is executed."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from analyses.models.fastsurfer import FastSurferVINN
from mcaprobe.errors import InputError

FORMAT = "mcaprobe.analyses.fastsurfervinn/1"


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The sizes of a FastSurferVINN (see there)."""

    slices: int = 7
    filters: int = 24
    interpolation_filters: int = 12
    classes: int = 4

    def build(self) -> FastSurferVINN:
        """Return the network with random weights."""
        return FastSurferVINN(**asdict(self))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + f".{os.getpid()}.partial")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        InputError: the file is missing, truncated or no safetensors file.
    """
    if not path.is_file():
        raise InputError(f"Expected a checkpoint at {path}, found no file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"Expected a safetensors file at {path}, could not read it: {error}.") from error


def save_network(
    path: Path, weights: Mapping[str, Tensor], sizes: Hyperparameters, training: Mapping[str, object]
) -> None:
    """Write the weights with the network's sizes and a record of its training in the header."""
    metadata = {
        "format": FORMAT,
        "hyperparameters": json.dumps(asdict(sizes)),
        "training": json.dumps(dict(training)),
    }
    write_tensors(path, weights, metadata)


def first_difference(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], keys: Iterable[str]
) -> tuple[str, str, str] | None:
    """Return the first key that is missing, too much or of another shape, and both shapes in words; None: all fit.

    Args:
        keys: Those that are compared, in their order.
    """

    def shape(tensors: Mapping[str, Tensor], key: str) -> str:
        return str(tuple(tensors[key].shape)) if key in tensors else "no such key"

    shapes = ((key, shape(wanted, key), shape(found, key)) for key in keys)
    return next((item for item in shapes if item[1] != item[2]), None)


def load_network(path: Path) -> tuple[FastSurferVINN, dict[str, object]]:
    """Return the network in eval mode and the record of its training.

    Raises:
        InputError: the file is no checkpoint of ours, or a key or a shape differs (the first one is named).
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"Expected format {FORMAT} in {path}, got {metadata.get('format')}.")
    network = Hyperparameters(**json.loads(metadata["hyperparameters"])).build()
    expected = network.state_dict()
    if (difference := first_difference(expected, tensors, sorted(expected.keys() | tensors.keys()))) is not None:
        key, wanted, found = difference
        raise InputError(f"Expected {key} of shape {wanted} in {path}, got {found}.")
    network.load_state_dict(tensors)
    return network.eval(), json.loads(metadata["training"])
