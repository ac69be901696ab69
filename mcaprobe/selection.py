"""Which layers go in a picture, and under which short name?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Named(Protocol):
    """Anything with the name of a layer."""

    @property
    def name(self) -> str: ...


Layer = TypeVar("Layer", bound=Named)


def components(name: str) -> list[str]:
    """Return the parts of a layer's name without pass numbers: modules from the outside in, the functional call."""
    path, *rest = name.split(":")
    parts = [part for part in path.split(".") if part]
    return parts + [part.split(".")[0] for part in rest if not re.fullmatch(r"\d+(\..*)?", part)]


def _passes(name: str) -> tuple[str, ...]:
    return tuple(part.split(".")[0] for part in name.split(":")[1:] if re.fullmatch(r"\d+(\..*)?", part))


def _last_of_blocks(names: Sequence[str], depth: int) -> set[int]:
    """Return the positions where a run of layers with the same first `depth` components ends."""
    blocks = [(components(name)[:depth], _passes(name) if len(components(name)) <= depth else ()) for name in names]
    return {i for i in range(len(names)) if i + 1 == len(names) or blocks[i + 1] != blocks[i]}


def select_layers(infos: Sequence[Layer], limit: int = 20) -> list[Layer]:
    """Return at most `limit` layers that tell the story, in the order given.

    All of them where they are few enough. Else the last layer of each block of the model, every unpooling and the
    final output; a block is what shares the first components of its name, as many as fit. Where even the outermost
    blocks are too many, they are thinned evenly. Decisions have no map, and are not to be among them.
    """
    if limit < 1:
        raise ValueError(f"Expected a limit of 1 layer or more, got {limit}.")
    layers = list(infos)
    if len(layers) <= limit:
        return layers
    names = [info.name for info in layers]
    must = [i for i, name in enumerate(names) if "unpool" in name.lower()]
    must = sorted({*must[-max(limit - 1, 0) :], len(names) - 1}) if limit > 1 else [len(names) - 1]
    chosen: list[int] = []
    for depth in range(1, max(len(components(name)) for name in names) + 1):
        found = sorted(_last_of_blocks(names, depth) | set(must))
        if len(found) > limit:
            break
        chosen = found
    if not chosen:
        blocks = sorted(_last_of_blocks(names, 1) - set(must))
        room = limit - len(must)
        even = {blocks[round(k * (len(blocks) - 1) / max(room - 1, 1))] for k in range(min(room, len(blocks)))}
        chosen = sorted(even | set(must))
    return [layers[i] for i in chosen]


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


def selected_names(names: Iterable[str], limit: int = 20) -> list[str]:
    """Return the names, each once, of the layers that select_layers() chooses."""
    return [layer.name for layer in select_layers([_Name(name) for name in dict.fromkeys(names)], limit)]


def short_names(names: Sequence[str], width: int = 20) -> list[str]:
    """Return the names without the modules that all of them share, and no longer than `width` (4 or more) characters.

    A name that is too long loses modules from the outside in, or its middle, where two would look the same.
    """
    parts = [name.split(":")[0].split(".") for name in names]
    shared = 0
    while len(names) > 1 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    skip = sum(len(part) + 1 for part in parts[0][:shared]) if names else 0
    full = [name[skip:].lstrip(":") or name for name in names]
    tails = [_tail(name, width) for name in full]
    return [
        tail if tails.count(tail) == 1 or len(tail) == len(name) else _middle(name, width)
        for name, tail in zip(full, tails, strict=True)
    ]


def _tail(name: str, width: int) -> str:
    """Return the most of the inner components that fit, or the name without its middle where no component does."""
    if len(name) <= width:
        return name
    starts = [match.end() for match in re.finditer(r"\.|:(?!\d)", name)]
    tails = [name[start:] for start in starts if 8 <= len(name) - start < width]
    return "…" + tails[0] if tails else _middle(name, width)


def _middle(name: str, width: int) -> str:
    head = (width - 1) // 3
    return name if len(name) <= width else f"{name[:head]}…{name[head + 1 - width :]}"
