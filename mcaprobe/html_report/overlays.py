"""Which masks and NaN maps lie over which slices? Of these runs, on the layers' own grids, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mcaprobe.agreement import Agreement
from mcaprobe.errors import InputError
from mcaprobe.html_report.groups import Group, Shown
from mcaprobe.html_report.nan_maps import NanMap, place_nan_map, read_nan_maps
from mcaprobe.layer_masks import SHARE, Mask
from mcaprobe.mask_store import load_masks
from mcaprobe.storage import to_json

UNSTABLE, NAN = "unstable", "nan"
Shares = NDArray[np.float32]
# Over a grey slice, told apart with any colour vision (tested by simulation); Okabe & Ito 2008.
COLOURS = {"both": "#f0e442", NAN: "#56b4e9", UNSTABLE: "#d55e00"}
WORDS = {"both": "unstable and NaN", NAN: "only NaN", UNSTABLE: "only unstable"}


@dataclass(frozen=True, slots=True)
class Source:
    """Masks of one rule, or NaN maps of one description; several folders where each is of another slice.

    Attributes:
        key: Short, and unique in the report.
        kind: `unstable` or `nan`.
        name: What is drawn, in words.
        folders: As the user gave them.
        statement: What the samples support of the masks, or what the maker of the NaN maps says of them.
    """

    key: str
    kind: str
    name: str
    folders: tuple[Path, ...]
    statement: str


@dataclass(frozen=True, eq=False)
class Overlays:
    """All that is drawn over the slices of the report.

    Attributes:
        sources: In the order given, masks first.
        shares: By source, run and layer: share of the channels that are marked or NaN, the layer's image axes.
        without_axes: Masked layers that have no image axes, by source.
    """

    sources: list[Source]
    shares: Mapping[tuple[str, Path, str], Shares]
    without_axes: Mapping[str, list[str]]

    def of(self, run: Shown, layer: str) -> dict[str, Shares]:
        """Return the shares of a layer of a run by source."""
        found = {source.key: self.shares.get((source.key, run.path, layer)) for source in self.sources}
        return {key: shares for key, shares in found.items() if shares is not None}

    def on(self, group: Group) -> list[Source]:
        """Return the sources that lie over any run of a group."""
        paths = {run.path for run in group.runs}
        there = {key for key, path, _ in self.shares if path in paths}
        return [source for source in self.sources if source.key in there]


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """How far NaNs and unstable elements agree in one layer of one run, counted by position, any channel."""

    layer: str
    slice: str
    unstable: str
    nan: str
    counts: Agreement


def load_overlays(groups: Sequence[Group], masks: Sequence[Path], nan: Sequence[Path]) -> Overlays:
    """Return the masks and NaN maps of the runs.

    Raises:
        InputError: no masks or NaN maps in a folder, damaged ones, or such as belong to none of the runs.
    """
    runs = [run for group in groups for run in group.runs]
    sources: dict[tuple[str, ...], Source] = {}
    shares: dict[tuple[str, Path, str], Shares] = {}
    flat: dict[str, list[str]] = {}
    for folder in masks:
        found = load_masks(folder)
        source = _mask_source(sources, folder, found)
        for run in _runs_of(found, runs, folder):
            for name, mask in found.items():
                if run.result[name].spatial:
                    _put(shares, (source.key, run.path, name), mask.reduced(SHARE).numpy(), folder, run.label)
                elif name not in flat.setdefault(source.key, []):
                    flat[source.key].append(name)
    for folder in nan:
        maps = read_nan_maps(folder)
        source = _nan_source(sources, folder, maps)
        for each in maps:
            for run, layer, values in place_nan_map(each, runs):
                _put(shares, (source.key, run.path, layer), values, each.path, run.label)
    return Overlays(list(sources.values()), shares, flat)


def _put(
    shares: dict[tuple[str, Path, str], Shares], key: tuple[str, Path, str], values: Shares, path: Path, where: str
) -> None:
    """Add an overlay; InputError where there is one of the same kind already."""
    if key in shares:
        raise InputError(f"{path} has a second map of the same kind for the layer {key[2]} on {where}: give it once.")
    shares[key] = values


def _mask_source(sources: dict[tuple[str, ...], Source], folder: Path, found: Mapping[str, Mask]) -> Source:
    about = next(iter(found.values())).about if found else {}
    if not about:
        raise InputError(f"{folder} is a folder of masks without any mask.")
    rule, estimator = str(about["Criterion"]["Rule"]), str(about["Estimator"]["Name"])
    statement = str(about["SamplingCeiling"]["Statement"])
    return _joined(sources, (UNSTABLE, rule, estimator, statement), rule, folder, statement)


def _nan_source(sources: dict[tuple[str, ...], Source], folder: Path, maps: Sequence[NanMap]) -> Source:
    words = " ".join(sorted({each.description for each in maps}))
    return _joined(sources, (NAN, words), f"NaN, from {folder.name or folder}", folder, words)


def _joined(
    sources: dict[tuple[str, ...], Source], what: tuple[str, ...], name: str, folder: Path, statement: str
) -> Source:
    """Return the source of the same kind, with this folder added, or a new one."""
    known = sources.get(what, Source(f"o{len(sources)}", what[0], name, (), statement))
    sources[what] = replace(known, folders=(*known.folders, folder))
    return sources[what]


def _runs_of(found: Mapping[str, Mask], runs: Sequence[Shown], folder: Path) -> list[Shown]:
    """Return the runs that masks were made of; InputError, with what differs from the nearest run, where none is."""
    theirs = next(iter(found.values())).about["Run"]["Identity"]
    apart = [_difference(json.loads(to_json(run.manifest["identity"])), theirs) for run in runs]
    mine = [run for run, differing in zip(runs, apart, strict=True) if not differing]
    if not mine:
        closest = min(range(len(runs)), key=lambda i: len(apart[i]))
        key = apart[closest][0]
        raise InputError(
            f"The masks in {folder} are of another run: their {key} is {theirs.get(key)!r}, that of "
            f"{runs[closest].path} is {runs[closest].manifest['identity'].get(key)!r}."
        )
    return mine


def _difference(mine: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    return [key for key in [*mine, *(k for k in theirs if k not in mine)] if mine.get(key) != theirs.get(key)]


def agreement_rows(groups: Sequence[Group], overlays: Overlays) -> list[AgreementRow]:
    """Return a row for each layer of each run that has both a mask and a NaN map."""
    rows = []
    masks = [source for source in overlays.sources if source.kind == UNSTABLE]
    nans = [source for source in overlays.sources if source.kind == NAN]
    for group in groups:
        for run in group.runs:
            for name in run.result.layers:
                found = overlays.of(run, name)
                for one in (source for source in masks if source.key in found):
                    for two in (source for source in nans if source.key in found):
                        unstable, lost = (torch.from_numpy(found[source.key] > 0) for source in (one, two))
                        counts = Agreement.of(lost, unstable)
                        rows.append(AgreementRow(name, run.label, one.name, two.name, counts))
    return rows
