"""Which model runs? From what the user names to an nn.Module in evaluation mode, or one clear sentence."""

import difflib
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

SHORT_MODELS = {"demo": "analyses.models.demo:build_model"}


@dataclass(frozen=True)
class Model:
    """A model in evaluation mode, the name it was asked for by, and what had to be said about it.

    `by_name`: it was asked for as `package.module:name`, so that another process can make it.
    """

    module: nn.Module
    spec: str
    sha256: str
    notes: tuple[str, ...] = ()
    by_name: bool = False


def nearest(name: str, names: list[str]) -> str:
    """Return a clause with the names nearest to `name`, or all of a few."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if close:
        return f"the nearest are {', '.join(close)}"
    return f"there are {', '.join(names[:8])}" if names else "there are none"


def import_object(spec: str, what: str) -> Any:
    """Return the object that `package.module:name` names; the current folder is importable.

    Raises:
        InputError: the spec has another form, the module cannot be imported or has no such name.
    """
    spec = SHORT_MODELS.get(spec, spec) if what == "model" else spec
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        known = f" or {', '.join(SHORT_MODELS)}" if what == "model" else ""
        raise InputError(f"Expected the {what} as package.module:name{known}, got {spec!r}.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise InputError(
            f"Cannot import the module {module_name} of the {what} {spec}: {type(error).__name__}: {error}."
        ) from error
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise InputError(f"The module {module_name} has no {name}: {nearest(name, names)}.")
    return getattr(module, name)


def state_hashes(module: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each parameter and buffer (dtype, shape, bytes), by name, in order."""
    return {name: tensor_hash(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def tensor_hash(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_model(model: str | nn.Module, device: str = "cpu") -> Model:
    """Return the model in evaluation mode on `device`.

    Args:
        model: An nn.Module, or `package.module:name` of a module or of a function without arguments that builds one,
            or a short name (`demo`).
    Raises:
        InputError: it cannot be imported or built, is no nn.Module, or the device is not there.
    """
    notes: tuple[str, ...] = ()
    spec = model if isinstance(model, str) else f"{type(model).__module__}:{type(model).__qualname__}"
    module: Any = import_object(model, "model") if isinstance(model, str) else model
    if isinstance(model, str) and not isinstance(module, nn.Module) and callable(module):
        module = _build(module, spec)
    if not isinstance(module, nn.Module):
        raise InputError(f"Expected {spec} to be a torch.nn.Module or to return one, got {type(module).__name__}.")
    if any(part.training for part in module.modules()):
        module.eval()
        notes = ("The model was in training mode: it was put in evaluation mode.",)
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    whole = hashlib.sha256(repr(sorted(state_hashes(module).items())).encode()).hexdigest()
    return Model(module, spec, whole, notes, isinstance(model, str))


def _build(build: Callable[[], Any], spec: str) -> Any:
    try:
        return build()
    except InputError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise InputError(f"Building the model {spec} raised {type(error).__name__}: {error}.") from error
