"""How are the tensors of a published checkpoint read, and what if it holds more than tensors?

A pickle is a program. `read_pickle` runs none: it lets torch read tensors and plain containers alone. `read_inert`
reads the rest too, with a thing that does nothing in the place of every class and function of others; numbers of
numpy stay numbers. What comes out are the same tensors.
"""

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mcaprobe.errors import InputError

_REFUSED = re.compile(r"(?:GLOBAL|global) (?:`?)([\w.]+)")
# What a state dict is made of, and the numbers beside it.
_TRUSTED = {
    ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor"), ("torch", "Size"), ("torch", "device"), ("builtins", "set"),
    ("torch.serialization", "_get_layout"),
}  # fmt: skip


class Inert:
    """What stands for an object of others: it takes anything, does nothing and knows only its name."""

    _name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an element of a list."""

    def extend(self, values: Any) -> None:
        """Take elements of a list."""

    def __reduce__(self) -> Any:
        raise TypeError(f"{self._name} was not read")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TRUSTED or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        return type(name, (Inert,), {"_name": f"{module}.{name}"})


def read_pickle(path: Path) -> Any:
    """Return what torch.save wrote, tensors on the CPU; nothing in the file is executed.

    Raises:
        InputError: no such file, another one, or one with objects that torch does not read without executing them (the
            first one is named, with what to do).
    """
    if not path.is_file():
        raise InputError(f"Expected a checkpoint at {path}, found no file.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise InputError(f"Expected a file of torch.save at {path}, could not read it.") from error
        raise InputError(
            f"The checkpoint {path} holds the object {found[1]}, which cannot be read without executing it: "
            f"`python -m analyses convert {path} OUT.safetensors` reads its tensors and executes nothing."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"Expected a file of torch.save at {path}, could not read it.") from error


def read_inert(path: Path) -> Any:
    """Return what torch.save wrote, with `Inert` in the place of the objects of others.

    Raises:
        InputError: no such file, or another one.
    """
    if not path.is_file():
        raise InputError(f"Expected a checkpoint at {path}, found no file.")
    module = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="analyses.models.pickles")
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError) as error:
        raise InputError(f"Expected a file of torch.save at {path}, could not read it.") from error


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()
