"""What do the rows of a CSV file look like? Accuracy against skipped work, wall clock, agreement, or a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from mcaprobe.html_report.charts import Bar, Frame, axis_for, bars, legend, number
from mcaprobe.html_report.markup import Html, tag
from mcaprobe.html_report.schemas import AGREEMENT, PLAIN, SKIPPING, WALL_CLOCK, Rows
from mcaprobe.html_report.tables import sortable

MOST_BARS = 60
MEASURES = ("dice", "chance_dice", "precision", "recall", "mcc")
Line = Mapping[str, str]
TITLES = {
    SKIPPING: "Accuracy against skipped work",
    WALL_CLOCK: "Wall clock",
    AGREEMENT: "Agreement of NaN and unstable elements",
    PLAIN: "Table",
}


def section_of(rows: Rows) -> Html:
    """Return the charts of a file, and all of its lines as a table."""
    drawn: list[Html] = _DRAW[rows.kind](rows) if rows.kind in _DRAW else []
    count = f"{len(rows.lines)} line{'s' if len(rows.lines) != 1 else ''} of {rows.path.name}"
    table = sortable(rows.columns, [[line[name] for name in rows.columns] for line in rows.lines], count)
    closed = tag("details", tag("summary", count), table) if drawn else table
    return tag("article", tag("h3", f"{TITLES[rows.kind]}: {rows.path.name}"), drawn, closed, class_="rows")


def _skipping(rows: Rows) -> list[Html]:
    names = list(dict.fromkeys(line.get("score_name") or "score" for line in rows.lines))
    methods = list(dict.fromkeys(line["method"] for line in rows.lines))
    return [chart for name in names if (chart := _score(rows, name, methods)) is not None]


def _score(rows: Rows, name: str, methods: Sequence[str]) -> Html | None:
    """Return the chart of one score: a line for each method, through the means over subjects at each threshold."""
    lines = [line for line in rows.lines if (line.get("score_name") or "score") == name]
    scores = [score for line in lines if (score := rows.number(line, "score")) is not None]
    if not scores:
        return None
    frame = Frame(axis_for([0.0, 100.0], "skipped work in %", 0, 100), axis_for(scores, name))
    body: list[Html] = []
    for series, method in enumerate(methods):
        body += _method(rows, [line for line in lines if line["method"] == method], frame, series)
    subjects = {line["subject"] for line in lines if line.get("subject")}
    many = f"Means over {len(subjects)} subjects; faint: each subject. " if len(subjects) > 1 else ""
    about = f"{name} over the share of skipped work, {len(methods)} methods. The table below has the numbers."
    note = tag("p", f"{many}Numbers beside the marks: threshold. Dashed: a method without one.", class_="note")
    return tag("figure", frame.figure(body, about), legend(methods), note, class_="chart")


def _method(rows: Rows, lines: Sequence[Line], frame: Frame, series: int) -> list[Html]:
    faint, points = [], []
    for threshold in dict.fromkeys(line["threshold"] for line in lines):
        found = [
            (100 * share, score)
            for line in lines
            if line["threshold"] == threshold
            and (share := rows.number(line, "skipped_share")) is not None
            and (score := rows.number(line, "score")) is not None
        ]
        if not found:
            continue
        mean = fmean(x for x, _ in found), fmean(y for _, y in found)
        points.append((mean, threshold))
        if len(found) > 1:
            faint += [frame.mark(point, series, "", more="faint") for point in found]
    method = lines[0]["method"] if lines else ""
    if [threshold for _, threshold in points] in ([""], ["nan"]):
        ((_, y), _) = points[0]
        faint.append(frame.line((0, y), (100, y), series, "dashed"))
    points.sort()
    joined = [frame.line(a, b, series) for (a, _), (b, _) in pairwise(points)]
    marks = [
        frame.mark(point, series, f"{method}, threshold {threshold or 'none'}: {number(point[0])} % skipped, "
                   f"{number(point[1])}", threshold)
        for point, threshold in points
    ]  # fmt: skip
    return [*faint, *joined, *marks]


def _wall_clock(rows: Rows) -> list[Html]:
    given = "speed_up" in rows.columns
    longest = max(_longest(rows, line, given) for line in rows.lines)
    found, ways = [], list(dict.fromkeys(line["way"] for line in rows.lines))
    for line in rows.lines:
        low, high = (rows.number(line, name) for name in ("low", "high"))
        seconds = _seconds(rows, line)
        fast, against = _speed_up(rows, line)
        bounds = f" ({number(low)} to {number(high)})" if given and low is not None and high is not None else ""
        span = None if given or low is None or high is None else (low / longest, high / longest)
        text = f"{number(seconds)} s" + (f", {number(round(fast, 3))} ×{bounds}" if against else "")
        threads = line["threads"]
        name = f"{line['way']}, {threads} thread{'s' if threads != '1' else ''}"
        found.append(Bar(name, seconds / longest, text, ways.index(line["way"]), span))
    bounded = "brackets: bounds of the speed-up" if given else "thin lines: bounds of the seconds"
    note = f"×: how many times faster than stock (or the first line) of the same threads; {bounded}."
    return [tag("figure", bars(found, "wall clock in seconds"), tag("p", note, class_="note"), class_="chart")]


def _longest(rows: Rows, line: Line, given: bool) -> float:
    high = None if given else rows.number(line, "high")
    return max(_seconds(rows, line), high or 0.0)


def _seconds(rows: Rows, line: Line) -> float:
    return rows.number(line, "seconds") or 0.0  # above 0: read_rows has seen to it


def _speed_up(rows: Rows, line: Line) -> tuple[float, bool]:
    """Return how many times faster a line is than stock, and whether it is anything but stock itself."""
    same = [other for other in rows.lines if other["threads"] == line["threads"]]
    stock = next((other for other in same if other["way"] == "stock"), same[0])
    stated = rows.number(line, "speed_up")
    computed = _seconds(rows, stock) / _seconds(rows, line)
    return stated if stated is not None else computed, line is not stock


def _agreement(rows: Rows) -> list[Html]:
    keys = [name for name in ("layer", "tensor", "threshold") if name in rows.columns]
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in rows.lines:
        groups.setdefault(tuple(line[key] for key in keys), []).append(line)
    found = []
    for key, lines in list(groups.items())[:MOST_BARS]:
        dice, chance, *others = (_mean(rows, lines, name) for name in MEASURES)
        words = [f"{word} {value:.2f}" for word, value in zip(("precision", "recall", "MCC"), others, strict=True)
                 if value is not None]  # fmt: skip
        text = ", ".join([f"{dice:.3f}" if dice is not None else "no Dice", *words])
        found.append(Bar(", ".join(part for part in key if part), dice or 0.0, text, tick=chance))
    subjects = len({line["subject"] for line in rows.lines})
    note = f"Bars: Dice from 0 to 1, mean over {subjects} subject{'s' if subjects != 1 else ''}."
    note += " Vertical tick: Dice of two independent masks of these sizes." if "chance_dice" in rows.columns else ""
    if len(groups) > MOST_BARS:
        note += f" The first {MOST_BARS} of {len(groups)} layers are drawn; the table has all of them."
    return [tag("figure", bars(found, "Dice of each layer"), tag("p", note, class_="note"), class_="chart")]


def _mean(rows: Rows, lines: Sequence[Line], name: str) -> float | None:
    values = [value for line in lines if (value := rows.number(line, name)) is not None]
    return fmean(values) if values else None


_DRAW: dict[str, Callable[[Rows], list[Html]]] = {
    SKIPPING: _skipping,
    WALL_CLOCK: _wall_clock,
    AGREEMENT: _agreement,
}
