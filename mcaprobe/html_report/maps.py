"""Which maps does the page hold? Each layer's slices and what lies over them, as many layers as the budget allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcaprobe.html_report.groups import Group, Shown
from mcaprobe.html_report.overlays import Overlays
from mcaprobe.html_report.pictures import View, anatomy_pngs, grid_of, map_pngs, share_pngs, slice_names, view_of
from mcaprobe.selection import select_layers
from mcaprobe.settings import matches


@dataclass(frozen=True, slots=True)
class LayerMaps:
    """The pictures of one layer.

    Attributes:
        caption: Operator and shape.
        box: Left, top, width and height of a picture in the field of view, in percent.
        cuts: Of each slice of each run: the map (`map`) and the overlays, by key, as PNG in base64.
        frames: Which of the cuts is seen at each position of the slider; -1 for none.
    """

    name: str
    caption: str
    box: tuple[float, float, float, float]
    cuts: list[dict[str, str]]
    frames: list[int]

    def data(self) -> dict[str, Any]:
        """Return what the script needs."""
        return {"name": self.name, "caption": self.caption, "box": self.box, "cuts": self.cuts, "frames": self.frames}

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(json.dumps(self.data(), ensure_ascii=False, separators=(",", ":")).encode()) + 1


@dataclass(frozen=True, slots=True)
class Kept:
    """Which layers fit: of each group, and the names of those that were left out."""

    layers: list[list[LayerMaps]]
    left_out: list[list[str]]

    @property
    def drawn(self) -> int:
        """How many layers have pictures in the page."""
        return sum(len(layers) for layers in self.layers)

    @property
    def missing(self) -> int:
        """How many layers were left out."""
        return sum(len(names) for names in self.left_out)


def frames_of(group: Group) -> list[tuple[Shown, str]]:
    """Return the positions of the slider: the run of each, and its name."""
    view = view_of(group.first)
    if view is None or view.slices == 1:
        return [(run, run.label) for run in group.runs]
    alone = len(group.runs) == 1
    names = [(run, "" if alone else f"{run.label}, ") for run in group.runs]
    return [(run, f"{name}{cut}") for run, name in names for cut in slice_names(run.result, view)]


def inputs_of(group: Group) -> list[str | None]:
    """Return the input at each position of the slider, in grey, as PNG in base64; None where it is no image."""
    view = view_of(group.first)
    if view is None:
        return [None] * len(group.runs)
    places = [run.result.place for run in group.runs]
    parts = [[None] * view.slices if place is None else anatomy_pngs(place, view) for place in places]
    return [picture for part in parts for picture in part]


def maps_of(group: Group, overlays: Overlays, globs: Sequence[str]) -> list[LayerMaps]:
    """Return the pictures of the layers that match the globs and have a map or an overlay, in execution order."""
    view = view_of(group.first)
    if view is None:
        return []
    found = [_layer(group, view, overlays, name) for name in group.layers if matches(name, globs)]
    return [layer for layer in found if layer is not None]


def _layer(group: Group, view: View, overlays: Overlays, name: str) -> LayerMaps | None:
    cuts: list[dict[str, str]] = []
    frames: list[int] = []
    box = caption = None
    for run in group.runs:
        pictures: dict[str, list[str]] = {}
        if name in run.result:
            layer = run.result[name]
            shares = overlays.of(run, name)
            sizes = [tuple(layer.bits.shape)] if layer.has_map else [values.shape for values in shares.values()]
            grid = grid_of(layer, view, sizes[0]) if sizes else None
            if grid is not None:
                box, caption = view.box(grid, sizes[0]), f"{layer.operator}, {' × '.join(map(str, layer.shape))}"
                pictures = {key: share_pngs(values, view) for key, values in shares.items()}
                if layer.has_map:
                    pictures = {"map": map_pngs(layer, view, group.most_bits), **pictures}
                near = view.nearest(grid, sizes[0])
                frames += [len(cuts) + k if k >= 0 else -1 for k in near]
                cuts += [dict(zip(pictures, cut, strict=True)) for cut in zip(*pictures.values(), strict=True)]
        if not pictures:
            frames += [-1] * view.slices
    return None if box is None or caption is None else LayerMaps(name, caption, box, cuts, frames)


def within(found: Sequence[Sequence[LayerMaps]], budget: int) -> Kept:
    """Return the layers that fit into a number of bytes: those that a picture of each group shows, then the others.

    The first that does not fit ends it: what follows is left out as well.
    """
    order = [(g, layer) for g, layers in enumerate(found) for layer in select_layers(layers)]
    first = {(g, layer.name) for g, layer in order}
    order += [(g, layer) for g, layers in enumerate(found) for layer in layers if (g, layer.name) not in first]
    fitting: set[tuple[int, str]] = set()
    room = budget
    for g, layer in order:
        room -= layer.size
        if room < 0:
            break
        fitting.add((g, layer.name))
    kept = [[layer for layer in layers if (g, layer.name) in fitting] for g, layers in enumerate(found)]
    left = [[layer.name for layer in layers if (g, layer.name) not in fitting] for g, layers in enumerate(found)]
    return Kept(kept, left)
