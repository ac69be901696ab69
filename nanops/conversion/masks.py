"""Which call of a model does each mask of an oracle belong to? By the names that a recorder of its calls gives them.

`encode1.pool` is what a layer returns and `encode1.pool.indices` its indices, whose mask is one over windows;
`decoder.1:max_unpool2d` is what a function returns that the forward of decoder.1 calls, `:max_pool2d` one that the
model's own calls, `:output` what the model returns. The second call of a name in a forward of the model is `name:2`. A
layer that returns what a pool inside it returned has names too: `block`, or `block.0` where that is one of several.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nanops.errors import InputError, nearest

INDICES = ".indices"
_OUTPUT = "output"
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_KINDS = (*_POOLS, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)
OPERATORS = ("max_pool1d", "max_pool2d", "max_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d")
_NUMBER = re.compile("[2-9]|[1-9][0-9]+")
# What a layer returns in tuples and lists; names in dictionaries could not be told from misspelt layers.
_PLACE = re.compile(r"(\.[0-9]+)*(\.indices)?")


@dataclass(frozen=True, slots=True)
class Call:
    """One call in a forward of a model.

    Args:
        path: Of the layer that makes it, "" for the model itself.
        operator: The function that is called; "" for the call of the layer itself.
        number: Which call of that name, from 1.
    """

    path: str
    operator: str
    number: int

    @property
    def name(self) -> str:
        """The name of what it returns."""
        name = f"{self.path}:{self.operator}" if self.operator else self.path or f":{_OUTPUT}"
        return name if self.number == 1 else f"{name}:{self.number}"


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of a model.

    Args:
        given: The masks of each call: by part, "" or ".indices" for instance, the mask.
        own: Paths of torch's own pools and unpools: what the function returns is what the layer returns.
        around: Paths of other layers whose own call has a mask.
    """

    given: Mapping[Call, Mapping[str, Tensor]]
    own: frozenset[str]
    around: frozenset[str]

    def repeats(self, path: str, operator: str) -> bool:
        """Return whether a second or later call of a name has a mask."""
        return any((c.path, c.operator) == (path, operator) and c.number > 1 for c in self.given)


def expect_masks(pooling: str | None, masks: object) -> None:
    """Raise InputError where there are masks and the pooling is not "mask", or the reverse."""
    if pooling != "mask":
        if masks is not None:
            raise InputError(f"Expected pooling='mask' where masks are given, got pooling={pooling!r}.")
        return
    if not isinstance(masks, Mapping):
        got = "None" if masks is None else f"a {type(masks).__name__}"
        raise InputError(f"Expected a mapping of names to bool tensors as masks for pooling='mask', got {got}.")
    if not masks:
        raise InputError("Expected at least one mask for pooling='mask', got an empty mapping.")


def read_masks(
    masks: Mapping[str, Tensor], layers: Mapping[nn.Module, Sequence[str]], converted: Collection[str]
) -> Masks:
    """Return masks by the calls of a model.

    Args:
        masks: By name.
        layers: The paths of each module of the model.
        converted: The first path of each module that is converted.

    Raises:
        InputError: no bool tensor, or a name that no pool or unpool of a converted layer can have.
    """
    known = _Layers(layers)
    given: dict[Call, dict[str, Tensor]] = {}
    for name, mask in masks.items():
        if not isinstance(name, str):
            raise InputError(f"Expected names as keys of masks, got {name!r}.")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.layout != torch.strided or mask.is_meta:
            got = f"a {mask.layout} of {mask.dtype}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise InputError(f"Expected a dense bool tensor as the mask of {name!r}, got {got}.")
        call, part = known.read(name)
        if call.path not in converted:
            raise InputError(f"Expected masks in layers that are converted, got {name!r}, which `layers` leaves out.")
        given.setdefault(call, {})[part] = mask
    own = frozenset(known.own())
    return Masks(given, own, frozenset(c.path for c in given if not c.operator and c.path not in own))


class _Layers:
    """The layers of a model, by path."""

    def __init__(self, layers: Mapping[nn.Module, Sequence[str]]) -> None:
        self.modules = {paths[0]: module for module, paths in layers.items()}
        self.first = {path: paths[0] for paths in layers.values() for path in paths}

    def own(self) -> list[str]:
        """Return the paths of torch's own pools and unpools."""
        return [path for path, module in self.modules.items() if _leaf(module) and isinstance(module, _KINDS)]

    def read(self, name: str) -> tuple[Call, str]:
        """Return the call that a name stands for, and the part of what it returns.

        Raises:
            InputError: it can stand for none.
        """
        path, operator, number, part = self._split(name)
        module = self._module(name, path)
        call = Call(path, operator, number)
        if _leaf(module):
            if not isinstance(module, _KINDS):
                raise InputError(f"Expected masks of max-pools and max-unpools, got {name!r}, a "
                                 f"{type(module).__name__}{nearest(name, self.own())}")  # fmt: skip
            if operator:
                raise InputError(f"Expected {Call(path, '', 1).name!r} as the name of what a torch.nn."
                                 f"{type(module).__name__} returns, got {name!r}.")  # fmt: skip
            _expect_part(name, call, part, isinstance(module, _POOLS))
        elif operator:
            if operator not in OPERATORS:
                raise InputError(f"Expected masks of max-pools and max-unpools, got {name!r}, a call of {operator!r}"
                                 f"{nearest(operator, OPERATORS)}")  # fmt: skip
            _expect_part(name, call, part, "unpool" not in operator)
        elif not (_called(module) and _PLACE.fullmatch(part)):
            raise self._unknown(name, path + part)
        return call, part

    def _split(self, name: str) -> tuple[str, str, int, str]:
        """Return path, operator, number and part of a name; all of it for the path where it cannot be told."""
        if ":" not in name:
            path = self._longest(name) or name
            return path, "", 1, name[len(path) :]
        path, *rest = name.split(":")
        last, dot, part = rest.pop().partition(".")
        number = int(last) if _NUMBER.fullmatch(last) else 1
        operators = rest if number > 1 else [*rest, last]
        operator = "".join(operators)
        if len(operators) > 1 or "" in operators or not (path or operator):
            return name, "", 1, ""
        return path, "" if (path, operator) == ("", _OUTPUT) else operator, number, dot + part

    def _longest(self, name: str) -> str:
        """Return the longest path that a name begins with, "" where there is none."""
        while name and name not in self.first:
            name = name.rpartition(".")[0]
        return name

    def _module(self, name: str, path: str) -> nn.Module:
        first = self.first.get(path)
        if first is None or (not path and ":" not in name):
            raise self._unknown(name, path)
        if first != path:
            raise InputError(f"Expected masks by names of calls, got {name!r}: layer {path!r} is also {first!r}, and "
                             "its calls count under that name.")  # fmt: skip
        return self.modules[path]

    def _unknown(self, name: str, path: str) -> InputError:
        near = nearest(path, filter(None, self.first))
        return InputError(f"Expected masks by names of calls, got {name!r}: the model has no layer {path!r}{near}")


def _expect_part(name: str, call: Call, part: str, pools: bool) -> None:
    """Raise InputError where a pool or an unpool returns no such part."""
    names = [call.name, call.name + INDICES] if pools else [call.name]
    if call.name + part not in names:
        expected = " or ".join(map(repr, names))
        raise InputError(f"Expected {expected} as the name of a mask, got {name!r}{nearest(name, names)}")


def _called(module: nn.Module) -> bool:
    """Return whether a module has a forward, as a list of modules has not."""
    return type(module).forward is not nn.Module.forward


def _leaf(module: nn.Module) -> bool:
    """Return whether the functions that a module calls are its own: a layer of torch.nn without children."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None
