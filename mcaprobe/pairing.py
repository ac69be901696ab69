"""May two runs be held against each other? One model, one input, and layers of one shape; which layers are in both?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcaprobe.errors import InputError
from mcaprobe.models import nearest
from mcaprobe.result import Result
from mcaprobe.routes import VERROU
from mcaprobe.settings import expect_matches, matches

EMULATOR = "emulator"


@dataclass(frozen=True, slots=True)
class Missing:
    """A layer that only one of the runs has.

    Attributes:
        run: A or B, the run that has it.
        hint: The names nearest to it in the other run, as a clause.
    """

    layer: str
    run: str
    hint: str

    def __str__(self) -> str:
        return f"{self.layer} is only in {self.run}; in {'B' if self.run == 'A' else 'A'} {self.hint}"


@dataclass(frozen=True, slots=True)
class Pairing:
    """Layers of both runs, in A's order of execution, and those of one run only."""

    layers: list[str]
    missing: list[Missing]


def pair(a: Result, b: Result, globs: Sequence[str] = ("*",)) -> Pairing:
    """Return the layers that match the globs.

    Raises:
        InputError: the runs differ in the model, the input or a layer's shape or type (the first difference is named),
            have no layer in common, or a glob matches none of the common ones.
    """
    expect_same_subject(a, b)
    theirs = set(b.layers)
    common = [name for name in a.layers if name in theirs]
    if not common:
        raise InputError(
            f"The runs have no layer in common: {a.layers[0]} is in A, in B {nearest(a.layers[0], b.layers)}."
            if a.layers
            else "The runs have no layer in common: A has none."
        )
    expect_matches("Of what both runs have, the layer glob", globs, common)
    missing = [
        Missing(name, run, nearest(name, other.layers))
        for run, one, other in (("A", a, b), ("B", b, a))
        for name in one.layers
        if name not in other.layers and matches(name, globs)
    ]
    chosen = [name for name in common if matches(name, globs)]
    for name in chosen:
        _expect_same_layer(name, a.manifest["layers"], b.manifest["layers"])
    return Pairing(chosen, missing)


def expect_same_subject(a: Result, b: Result) -> None:
    """Raise InputError, with the first difference, unless both runs are of one model and one input.

    The parameters and the input tensor decide, by their hashes; the same model under two names is one model.
    """
    for what, found in (("model", model_of), ("input", input_of)):
        mine, theirs = (run.manifest["identity"].get(f"{what} sha256") for run in (a, b))
        if mine != theirs:
            raise InputError(
                f"Expected two runs of one model on one input, got two {what}s: {found(a)} in A and {found(b)} in B."
            )


def model_of(run: Result) -> str:
    """Return the name of a run's model and the start of the hash of its parameters."""
    identity = run.manifest["identity"]
    return f"{identity['model']} (parameters {str(identity.get('model sha256'))[:8]})"


def input_of(run: Result) -> str:
    """Return the name and shape of a run's input and the start of its hash."""
    about, identity = run.manifest["input"], run.manifest["identity"]
    return f"{about['name']} ({'x'.join(map(str, about['shape']))}, {str(identity.get('input sha256'))[:8]})"


def _expect_same_layer(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise InputError where a layer has another shape or type; metrics, which are numbers, are not listed."""
    if name not in a or name not in b:
        return
    for key in ("shape", "dtype"):
        if a[name][key] != b[name][key]:
            one, two = (x[name][key] for x in (a, b))
            raise InputError(f"Expected layers of one shape and type, got {name} with {key} {one} in A and {two} in B.")


def backend_of(run: Result) -> str:
    """Return what perturbed the arithmetic of a run."""
    return VERROU if run.manifest["route"] == VERROU else EMULATOR


def place_of(run: Result) -> str:
    """Return the backend of a run, and the route of an emulated one."""
    backend = backend_of(run)
    return backend if backend == VERROU else f"{backend}, route {run.manifest['route']}"


def arithmetic_of(run: Result) -> str:
    """Return n, mode and backend of a run in words."""
    manifest = run.manifest
    precision = f" with {manifest['precision']} bits" if manifest.get("precision") is not None else ""
    return f"n = {run.samples}, mode {manifest['mode']}{precision}, {place_of(run)}, seed {manifest.get('seed')}"
