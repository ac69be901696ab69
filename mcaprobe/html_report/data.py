"""What does the script of the page need to draw the table, the heatmap and the maps?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mcaprobe.html_report.groups import Group, Shown
from mcaprobe.html_report.maps import LayerMaps, frames_of
from mcaprobe.html_report.overlays import COLOURS as OVER
from mcaprobe.html_report.overlays import WORDS as OVER_WORDS
from mcaprobe.html_report.overlays import Overlays
from mcaprobe.html_report.pictures import LEVELS, PALETTE, view_of
from mcaprobe.html_report.profiles import REGIONS, Heat
from mcaprobe.metrics import PREFIX
from mcaprobe.palette import COLOURS, WORDS
from mcaprobe.plots import SIDES
from mcaprobe.selection import selected_names
from mcaprobe.statistics import Class
from mcaprobe.table import COLUMNS, row_record


def page_data(
    groups: Sequence[Group], heats: Sequence[Heat], inputs: Sequence[Sequence[str | None]],
    layers: Sequence[Sequence[LayerMaps]], overlays: Overlays,
) -> dict[str, Any]:  # fmt: skip
    """Return it as plain JSON values.

    Args:
        heats: The heatmap of each group.
        inputs: Of each group `maps.inputs_of`.
        layers: Of each group, those that have pictures in the page.
    """
    runs = [(g, run) for g, group in enumerate(groups) for run in group.runs]
    return {
        "levels": LEVELS,
        "palette": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in PALETTE],
        "classes": [{"name": kind.name.lower(), "colour": COLOURS.get(kind), "words": WORDS.get(kind, "number")}
                    for kind in Class],
        "over": {key: {"colour": colour, "words": OVER_WORDS[key]} for key, colour in OVER.items()},
        "columns": COLUMNS,
        "regions": [region for region in REGIONS if _has_region(groups, region)],
        "runs": [_run(g, group_run, len(groups) > 1) for g, group_run in runs],
        "groups": [
            _group(*own, overlays) for own in zip(groups, heats, inputs, layers, strict=True)
        ],
    }  # fmt: skip


def _has_region(groups: Sequence[Group], region: str) -> bool:
    return any(row.region == region for group in groups for run in group.runs for row in run.result.rows)


def _run(group: int, run: Shown, many: bool) -> dict[str, Any]:
    name = f"{run.manifest['identity']['model']}: {run.label}" if many else run.label
    records = [row_record(row) for row in run.result.rows]
    return {
        "label": name,
        "folder": run.path.name,
        "group": group,
        "main": sorted({*selected_names(row.layer for row in run.result.rows), *_others(run)}),
        "rows": [[_finite(record[column]) for column in COLUMNS] for record in records],
    }


def _others(run: Shown) -> list[str]:
    """Return pool indices and metrics: the table of `mcaprobe run` lists them beside the layers of the picture."""
    rows = run.result.rows
    return [row.layer for row in rows if row.index_change_rate is not None or row.layer.startswith(PREFIX)]


def _finite(value: Any) -> Any:
    """Return a value as JSON has it: infinity and NaN, which it lacks, become texts."""
    return str(value) if isinstance(value, float) and not -float("inf") < value < float("inf") else value


def _group(
    group: Group, heat: Heat, inputs: Sequence[str | None], layers: Sequence[LayerMaps], overlays: Overlays
) -> dict[str, Any]:
    view = view_of(group.first)
    frames = frames_of(group)
    return {
        "title": group.title,
        "plane": group.plane,
        "sides": SIDES[group.plane] if group.plane is not None else None,
        "aspect": None if view is None else round(view.aspect, 6),
        "mostBits": group.most_bits,
        "anatomy": list(inputs),
        "frames": [{"label": label, "run": group.runs.index(run)} for run, label in frames],
        "overlays": [{"key": s.key, "kind": s.kind, "name": s.name} for s in overlays.on(group)],
        "layers": [layer.data() for layer in layers],
        "heat": {**dataclasses.asdict(heat), "main": selected_names(heat.rows)},
    }  # fmt: skip
