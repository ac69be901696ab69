"""What does a reader see of all subjects? One HTML file without a script: charts, tables, links to each subject."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from string import Template

from mcaprobe.bids_app.group import Group, GroupRow
from mcaprobe.html_report.charts import Axis, Bar, Frame, bars, legend
from mcaprobe.html_report.depth import block_names, blocks
from mcaprobe.html_report.markup import Child, Html, escaped, tag
from mcaprobe.html_report.page import asset, policy
from mcaprobe.html_report.tables import plain
from mcaprobe.manifest import versions
from mcaprobe.metrics import PREFIX
from mcaprobe.regions import ALL
from mcaprobe.storage import replacing

PAGE = "group.html"
_WORDS = {"bits_mean": "significant bits", "share_noise": "noise in %", "index_change_rate": "changed decisions in %"}
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="mcaprobe group report 1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


def write_page(found: Group, out: Path, title: str, seed: int) -> Path:
    """Write the page of a group into its folder; return the file."""
    parts = [_summary(found, seed), _chart(found), _regions(found), _subjects(found, out), _missing(found)]
    parts.append(_table(found))
    style = asset("style.css")
    page = _PAGE.substitute(policy=escaped(policy(style, "")), title=escaped(title), style=style, body=escaped(parts))
    path = out / PAGE
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _summary(found: Group, seed: int) -> Html:
    bits = [row for row in found.rows if row.measure == "bits_mean"]
    region = "brain" if any(row.region == "brain" for row in bits) else ALL
    worst = min((row for row in bits if row.region == region), key=lambda row: row.mean, default=None)
    lead = f"{len(found.subjects)} subjects, {len({row.layer for row in found.rows})} layers. Intervals: "
    words = found.interval_words.replace("seed stated", f"seed {seed}")
    fewest = None if worst is None else tag("p", f"Fewest bits: {_spoken(worst)} in {worst.layer} ({worst.region}).")
    made = tag("p", f"Made by mcaprobe {versions()['mcaprobe']}.", class_="note")
    said = tag("p", f"{lead}{words}. {found.run_words}", class_="lead")
    return tag("section", tag("h2", "Summary"), said, fewest, made, id="summary")


def _spoken(row: GroupRow) -> str:
    bounds = "" if row.low is None or row.high is None else f" ({row.low:.2f} to {row.high:.2f})"
    return f"{row.mean:.2f}{bounds}, subjects {row.least:.2f} to {row.most:.2f}"


def _chart(found: Group) -> Html | None:
    """Return mean bits through the network with their intervals; None where no layer has bits."""
    rows = [row for row in found.rows if row.measure == "bits_mean" and not row.layer.startswith(PREFIX)]
    regions = [name for name in ("brain", "background") if any(row.region == name for row in rows)] or [ALL]
    layers = list(dict.fromkeys(row.layer for row in rows if row.region in regions))
    if not layers:
        return None
    top = 24 if all(row.most <= 24 for row in rows) else 53
    frame = Frame(Axis(0, len(layers), (), "layers in the order of execution"),
                  Axis(0, top, tuple(range(0, top + 1, 4 if top == 24 else 10)), "mean significant bits"))  # fmt: skip
    body = blocks(layers, frame)
    for series, region in enumerate(regions):
        own = {row.layer: row for row in rows if row.region == region}
        body += _curve([(i, own[name]) for i, name in enumerate(layers) if name in own], frame, series)
    about = f"Mean significant bits of {len(layers)} layers over {len(found.subjects)} subjects; numbers are below."
    note = tag("p", "Lines up and down: the interval. Mean over the elements that are numbers.", class_="note")
    names = ["whole layer" if region == ALL else region for region in regions]
    drawing = tag("figure", frame.figure(body, about, block_names(layers)), legend(names), note, class_="chart")
    return tag("section", tag("h2", "Significant bits through the network"), drawing, id="depth")


def _curve(points: Sequence[tuple[int, GroupRow]], frame: Frame, series: int) -> list[Html]:
    def within(value: float) -> float:
        return min(max(value, frame.y.low), frame.y.high)

    at = [((i + 0.5), within(row.mean)) for i, row in points]
    marks = [frame.mark(point, series, f"{row.layer}, {row.region}: {_spoken(row)} bits", more="small")
             for point, (_, row) in zip(at, points, strict=True)]  # fmt: skip
    ranges = [frame.line((i + 0.5, within(row.low)), (i + 0.5, within(row.high)), series, "range")
              for i, row in points if row.low is not None and row.high is not None]  # fmt: skip
    return [*ranges, *[frame.line(a, b, series) for a, b in pairwise(at)], *marks]


def _regions(found: Group) -> Html | None:
    """Return the bits in the regions of a segmentation, in the last layer that has them; None without regions."""
    own = (ALL, "brain", "background")
    rows = [row for row in found.rows if row.measure == "bits_mean" and row.region not in own]
    if not rows:
        return None
    layer = rows[-1].layer
    rows = [row for row in rows if row.layer == layer]
    top = max(row.most if row.high is None else max(row.high, row.most) for row in rows) or 1.0
    lines = [
        Bar(row.region, min(max(row.mean / top, 0), 1), f"{_spoken(row)}; {row.subjects} subjects",
            span=None if row.low is None or row.high is None else (max(row.low / top, 0), max(row.high / top, 0)))
        for row in rows
    ]  # fmt: skip
    note = tag("p", f"In {layer}, the last layer with bits there; thin lines: the interval.", class_="note")
    drawing = tag("figure", bars(lines, "mean significant bits of each region"), note, class_="chart")
    return tag("section", tag("h2", "Regions of the segmentation"), drawing, id="regions")


def _subjects(found: Group, out: Path) -> Html:
    """Return a line for each subject, with the layer where it is farthest from the mean of all."""
    lines: list[list[Child]] = []
    for subject in found.subjects:
        page = f"sub-{subject}.html"
        name: Child = tag("a", f"sub-{subject}", href=page) if (out / page).is_file() else f"sub-{subject}"
        lines.append([name, *_farthest(found, subject)])
    heads = ["subject", "farthest from the mean in", "bits", "mean of all", "standard deviations away"]
    note = tag("p", "Of the layers whose bits differ between subjects, whole layers only.", class_="note")
    return tag("section", tag("h2", "Subjects"), plain(heads, lines, "Subjects"), note, id="subjects")


def _farthest(found: Group, subject: str) -> list[Child]:
    best: tuple[float, GroupRow, float] | None = None
    for row, values in zip(found.rows, found.values, strict=True):
        if row.measure == "bits_mean" and row.region == ALL and row.std and subject in values:
            away = (values[subject] - row.mean) / row.std
            if best is None or abs(away) > abs(best[0]):
                best = away, row, values[subject]
    if best is None:
        return ["", "", "", ""]
    away, row, value = best
    return [row.layer, f"{value:.2f}", f"{row.mean:.2f}", f"{away:+.1f}"]


def _missing(found: Group) -> Html | None:
    if not found.missing:
        return None
    items = [tag("li", tag("span", name, class_="where"), " ", why) for name, why in found.missing.items()]
    return tag("section", tag("h2", "Images that failed"), tag("ul", items, class_="problems is-error"), id="missing")


def _table(found: Group) -> Html:
    lines: list[list[Child]] = []
    for row in found.rows:
        scale = 1 if row.measure == "bits_mean" else 100
        numbers = (row.mean, row.low, row.high, row.std, row.least, row.most)
        cells = ["" if value is None else f"{scale * value:.2f}" for value in numbers]
        lines.append([row.layer, row.operator, row.region, _WORDS[row.measure], row.subjects, *cells])
    heads = ["layer", "operator", "region", "measure", "subjects", "mean", "low", "high", "std", "least", "most"]
    note = tag("p", "group_sigbits.tsv has every digit.", class_="note")
    return tag("section", tag("h2", "Table"), plain(heads, lines, "Layers and regions"), note, id="table")
