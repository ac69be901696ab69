"""Where in the network do the digits go? Mean significant bits of each layer, from the first to the last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mcaprobe.html_report.charts import Axis, Frame, legend
from mcaprobe.html_report.groups import Group
from mcaprobe.html_report.markup import Html, tag
from mcaprobe.metrics import PREFIX
from mcaprobe.regions import ALL
from mcaprobe.rows import Row
from mcaprobe.selection import components

NAMED = 16  # at most so many blocks have their names below the chart


def regions_of(group: Group) -> list[str]:
    """Return the regions that are drawn: brain and background where there is a mask, else the whole layer."""
    there = {row.region for run in group.runs for row in run.result.rows}
    return [region for region in ("brain", "background") if region in there] or [ALL]


def means(group: Group, region: str) -> dict[str, list[Row]]:
    """Return the rows of a region by layer, in execution order: those with bits, one for each run that has them."""
    found: dict[str, list[Row]] = {
        name: [] for name in group.layers if not name.startswith(PREFIX)
    }
    for run in group.runs:
        for row in run.result.rows:
            if row.region == region and row.bits_mean is not None and row.layer in found:
                found[row.layer].append(row)
    return found


def depth_chart(group: Group) -> Html | None:
    """Return the chart, with the range over the runs where there are several; None where no layer has bits."""
    regions = regions_of(group)
    rows = [means(group, region) for region in regions]
    layers = [name for name in rows[0] if any(found[name] for found in rows)]
    if not layers:
        return None
    top = group.most_bits
    frame = Frame(Axis(0, len(layers), (), "layers in the order of execution"),
                  Axis(0, top, tuple(range(0, top + 1, 4 if top == 24 else 10)), "mean significant bits"))  # fmt: skip
    body = blocks(layers, frame)
    for series, (region, found) in enumerate(zip(regions, rows, strict=True)):
        body += _curve([found[name] for name in layers], layers, region, frame, series)
    several = f"; vertical lines: range over {len(group.runs)} runs" if len(group.runs) > 1 else ""
    about = f"Mean significant bits of {len(layers)} layers in the order of execution; the table has the numbers."
    note = tag("p", f"Mean over the elements that are numbers, whatever their share{several}.", class_="note")
    key = legend(["whole layer" if region == ALL else region for region in regions])
    return tag("figure", frame.figure(body, about, block_names(layers)), key, note, class_="chart")


def _curve(found: Sequence[Sequence[Row]], layers: Sequence[str], region: str, frame: Frame, series: int) -> list[Html]:
    points: list[tuple[float, float]] = []
    marks, ranges = [], []
    for i, rows in enumerate(found):
        values = [row.bits_mean for row in rows if row.bits_mean is not None]
        if not values:
            continue
        clipped = [min(max(value, frame.y.low), frame.y.high) for value in values]
        mean = sum(clipped) / len(clipped)
        points.append((i + 0.5, mean))
        spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
        text = f"{layers[i]}, {region}: {sum(values) / len(values):.1f} bits{spread}"
        marks.append(frame.mark(points[-1], series, text, more="small"))
        if len(values) > 1:
            ranges.append(frame.line((i + 0.5, min(clipped)), (i + 0.5, max(clipped)), series, "range"))
    lines = [frame.line(a, b, series) for a, b in pairwise(points)]
    return [*ranges, *lines, *marks]


def _spans(layers: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the outermost blocks of the model: name, first layer, layer behind the last."""
    spans: list[tuple[str, int, int]] = []
    for i, name in enumerate(layers):
        block = (components(name) or [name])[0]
        if spans and spans[-1][0] == block:
            spans[-1] = (block, spans[-1][1], i + 1)
        else:
            spans.append((block, i, i + 1))
    return spans


def blocks(layers: Sequence[str], frame: Frame) -> list[Html]:
    """Return a faint ground below every second block."""
    spans = _spans(layers)
    if len(spans) > NAMED:
        return []
    return [
        tag("rect", x=frame.across(first), width=frame.across(last - first), y=0, height=frame.height, class_="block")
        for k, (_, first, last) in enumerate(spans)
        if k % 2
    ]


def block_names(layers: Sequence[str]) -> Html:
    """Return the names of the blocks below the chart, slanted; first and last layer where there are too many."""
    spans, whole = _spans(layers), len(layers)
    if len(spans) > NAMED:
        first, last = tag("text", layers[0], x=0, y=14), tag("text", layers[-1], x="100%", y=14, class_="tick end")
        return tag("svg", first, last, class_="x-axis", height=20, aria_hidden="true")
    names = [
        tag("svg", tag("text", name, transform="rotate(-40)", class_="tick end", dy="0.5em"), x=f"{100 * at:.2f}%", y=6,
            class_="at")
        for name, at in ((name, (first + last) / 2 / whole) for name, first, last in spans)
    ]  # fmt: skip
    longest = max(len(name) for name, _, _ in spans)
    return tag("svg", names, class_="x-axis", height=min(14 + 4 * longest, 110), aria_hidden="true")
