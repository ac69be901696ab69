"""What does one file say of finished runs? Everything that was gathered is put on one page and written whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcaprobe.errors import InputError, RunFailure
from mcaprobe.folders import file_hash
from mcaprobe.html_report import sections
from mcaprobe.html_report.data import page_data
from mcaprobe.html_report.facts import versions_of
from mcaprobe.html_report.groups import Group, load_runs
from mcaprobe.html_report.maps import Kept, inputs_of, maps_of, within
from mcaprobe.html_report.markup import Html, tag
from mcaprobe.html_report.nan_maps import PATTERN
from mcaprobe.html_report.overlays import UNSTABLE, Overlays, agreement_rows, load_overlays
from mcaprobe.html_report.page import build, is_report
from mcaprobe.html_report.problems import NOTE, WARNING, Problem, of_groups, ordered
from mcaprobe.html_report.profiles import Heat, heat_of
from mcaprobe.html_report.scale import scale
from mcaprobe.html_report.schemas import Rows, read_rows
from mcaprobe.html_report.summary import summary
from mcaprobe.html_report.words import references
from mcaprobe.manifest import MANIFEST, commit, versions
from mcaprobe.mask_store import TENSORS
from mcaprobe.place import ANATOMY
from mcaprobe.settings import expect_matches
from mcaprobe.storage import DamagedFile, replacing
from mcaprobe.table import TABLE

MEGABYTE = 10**6
MAX_MEGABYTES = 40.0
_LISTED = 8  # layers without pictures that are named
_SLACK = 4096  # bytes of the sentences on layers that were left out


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        size: Of the file, in bytes.
        drawn: Layers that have pictures in it. left_out: names of those that would have made it too large.
    """

    path: Path
    size: int
    drawn: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Parts:
    groups: list[Group]
    heats: list[Heat]
    inputs: list[list[str | None]]
    overlays: Overlays
    rows: list[Rows]
    problems: list[Problem]
    globs: tuple[str, ...]


def report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    masks: Sequence[str | Path] = (),
    nan: Sequence[str | Path] = (),
    rows: Sequence[str | Path] = (),
    layers: str | Sequence[str] = "*",
    max_megabytes: float = MAX_MEGABYTES,
) -> Report:
    """Write one HTML file that holds all of its parts and requests nothing; the same input gives the same bytes.

    Args:
        runs: Run directories; runs of one model on slices of one image share a heatmap and a slider.
        out: The file, `*.html`; an earlier report is replaced, anything else is not.
        masks: Folders of `mcaprobe mask`, each of one of the runs.
        nan: Folders of NIfTI files `*_desc-nan_probseg.nii.gz` with JSON beside them (report_schema.md).
        rows: CSV files (report_schema.md).
        layers: Globs of the layers whose maps are in the file.
        max_megabytes: Of 10^6 bytes; layers whose maps do not fit are left out and named.
    Raises:
        InputError: what is wrong with an argument or a file. RunFailure: the file cannot be written.
    """
    path = Path(out)
    expect_free(path)
    if not max_megabytes > 0:
        raise InputError(f"Expected a file of more than 0 megabytes, got {max_megabytes:g}.")
    given = [runs] if isinstance(runs, (str, Path)) else list(runs)
    globs = (layers,) if isinstance(layers, str) else tuple(layers)
    parts = _gathered(given, [Path(p) for p in masks], [Path(p) for p in nan], [Path(p) for p in rows], globs)
    try:
        page, kept = _page(parts, int(max_megabytes * MEGABYTE))
    except DamagedFile as error:
        raise InputError(f"A run is damaged: {error}.") from error
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(page)
    except OSError as error:
        raise RunFailure(f"Cannot write {path}: {error.strerror}.") from error
    return Report(path, len(page), kept.drawn, tuple(name for names in kept.left_out for name in names))


def expect_free(out: Path) -> None:
    """Raise InputError unless `out` is a new *.html in a folder that exists, or an earlier report."""
    if out.is_dir():
        raise InputError(f"Expected a file for the report, got the folder {out}.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"Expected a report ending in .html, got {out}.")
    if not out.parent.is_dir():
        raise InputError(f"Cannot write {out}: there is no folder {out.parent}.")
    if out.exists():
        with out.open("rb") as file:
            start = file.read(2048).decode("utf-8", "replace")
        if start and not is_report(start):
            raise InputError(f"{out} is no report of mcaprobe: choose another --out.")


def _gathered(
    runs: Sequence[str | Path], masks: Sequence[Path], nan: Sequence[Path], rows: Sequence[Path], globs: tuple[str, ...]
) -> _Parts:
    tables = [read_rows(path) for path in rows]
    groups = load_runs(runs)
    expect_matches("The layer glob", globs, dict.fromkeys(name for group in groups for name in group.layers))
    try:
        overlays = load_overlays(groups, masks, nan)
        heats = [heat_of(group) for group in groups]
        inputs = [inputs_of(group) for group in groups]
    except DamagedFile as error:
        raise InputError(f"A run is damaged: {error}.") from error
    problems = [*of_groups(groups), *_overlay_problems(overlays)]
    return _Parts(groups, heats, inputs, overlays, tables, problems, globs)


def _overlay_problems(overlays: Overlays) -> list[Problem]:
    found = []
    for source in overlays.sources:
        flat = overlays.without_axes.get(source.key, [])
        if flat:
            sentence = f"{len(flat)} masked layers have no image axes, hence are not drawn; the first is {flat[0]}."
            found.append(Problem(NOTE, ", ".join(map(str, source.folders)), sentence))
    return found


def _page(parts: _Parts, budget: int) -> tuple[bytes, Kept]:
    """Return the page with as many maps as the budget allows."""
    found = [maps_of(group, parts.overlays, parts.globs) for group in parts.groups]
    bare = _built(parts, Kept([[] for _ in parts.groups], [[] for _ in parts.groups]), budget)
    if len(bare) > budget:
        raise InputError(
            f"The report without any map takes {len(bare) / MEGABYTE:.2f} megabytes, more than the "
            f"{budget / MEGABYTE:g} of --max-megabytes."
        )
    kept = within(found, budget - len(bare) - _SLACK)
    return _built(parts, kept, budget), kept


def _built(parts: _Parts, kept: Kept, budget: int) -> bytes:
    groups, overlays = parts.groups, parts.overlays
    problems = ordered([*parts.problems, *_left_out(groups, kept, budget)])
    measured = sections.measured(parts.rows)
    fields = {
        "summary": summary(groups, problems),
        "runs": sections.runs(groups),
        "scale": scale(groups),
        "maps_note": _maps_note(groups, kept, budget),
        "overlays": sections.overlay_notes(overlays, agreement_rows(groups, overlays)),
        "table": sections.layer_table(),
        "rows": measured,
        "methods": sections.methods_text(groups, overlays, references(groups)),
        "problems": sections.problem_list(problems),
        "about": sections.about(_facts(groups), _sources(parts)),
    }
    nav = [("summary", "Summary"), ("runs", "What was run"), ("heatmap", "Layers and slices"), ("maps", "Maps"),
           ("layers", "Table of layers"), *([("rows", "Measurements")] if measured else []), ("methods", "Methods"),
           ("problems", "Errors and warnings"), ("about", "About")]  # fmt: skip
    titles = list(dict.fromkeys(group.title for group in groups))
    return build("; ".join(titles), fields, nav, page_data(groups, parts.heats, parts.inputs, kept.layers, overlays))


def _left_out(groups: Sequence[Group], kept: Kept, budget: int) -> list[Problem]:
    return [
        Problem(WARNING, group.title, f"{_missing(names, budget)} --max-megabytes sets the limit, --layers chooses.")
        for group, names in zip(groups, kept.left_out, strict=True)
        if names
    ]


def _missing(names: Sequence[str], budget: int) -> str:
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    count = f"The maps of {len(names)} layers are" if len(names) > 1 else "The map of 1 layer is"
    return f"{count} not in this file, which would be larger than {budget / MEGABYTE:g} megabytes: {listed}."


def _maps_note(groups: Sequence[Group], kept: Kept, budget: int) -> Html:
    notes = [tag("p", _missing(names, budget), class_="note") for names in kept.left_out if names]
    if not kept.drawn and not kept.missing:
        notes.append(tag("p", "No layer of these runs has a map: their inputs have no image axes, or no map was kept."))
    elif any(group.plane is not None for group in groups):
        notes.append(tag("p", "Neurological convention: the patient's right is at the right, as the letters say.",
                         class_="note"))  # fmt: skip
    return Html("".join(notes))


def _facts(groups: Sequence[Group]) -> list[tuple[str, str]]:
    made = f"mcaprobe {versions()['mcaprobe']}" + (f", commit {commit()}" if commit() else "")
    return [
        ("Report made by", made),
        ("Runs made by", ", ".join(f"mcaprobe {version}" for version in versions_of(groups))),
        ("Licence", "mcaprobe is free software under the licence Apache-2.0."),
        ("This file", "holds its style, script, numbers and pictures; its security policy forbids any request."),
    ]


def _sources(parts: _Parts) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for run in (run for group in parts.groups for run in group.runs):
        there = [name for name in (MANIFEST, TABLE, ANATOMY) if (run.path / name).is_file()]
        found.append((str(run.path), f"run: {', '.join(there)}, layers"))
        found.append((os.path.join(run.path, TABLE), f"SHA-256 {file_hash(run.path / TABLE)}"))
    for source in parts.overlays.sources:
        for folder in source.folders:
            if source.kind == UNSTABLE:
                found.append((str(folder if folder.name == TENSORS else folder / TENSORS), "masks"))
            else:
                found += [(str(path), "NaN map") for path in sorted(folder.glob(PATTERN))]
    return found + [(str(rows.path), f"rows, SHA-256 {file_hash(rows.path)}") for rows in parts.rows]
