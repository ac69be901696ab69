"""Which leaves does an output hold, and how are they exchanged? In tuples, lists, dictionaries and dataclasses."""

import copy
import dataclasses
from collections.abc import Callable, MutableMapping
from typing import Any

import torch


def exchanged(output: Any, change: Callable[[str, Any], Any], part: str = "") -> Any:
    """Return an output with change(part, leaf) for each of its leaves; the very output where nothing changes.

    Args:
        change: Given where the leaf stands, "" alone, ".0" in a tuple or list, ".name" in a dictionary, a named tuple
            or a dataclass, ".name.0" within one another, and the leaf: a tensor or what is none of these.
        part: Where the output itself stands.
    """
    if isinstance(output, torch.Tensor):
        return change(part, output)
    if isinstance(output, MutableMapping):
        found = {key: exchanged(value, change, f"{part}.{key}") for key, value in output.items()}
        if all(found[key] is output[key] for key in found):
            return output
        made = copy.copy(output)
        made.update(found)
        return made
    if isinstance(output, (tuple, list)) and not isinstance(output, torch.Size):
        names = getattr(output, "_fields", range(len(output)))
        items = [exchanged(value, change, f"{part}.{name}") for name, value in zip(names, output, strict=True)]
        if all(new is old for new, old in zip(items, output, strict=True)):
            return output
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        values = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
        found = {name: exchanged(old, change, f"{part}.{name}") for name, old in values.items()}
        changed = {name: new for name, new in found.items() if new is not values[name]}
        return dataclasses.replace(output, **changed) if changed else output
    return change(part, output)
