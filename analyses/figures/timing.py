"""The wall clock end to end: goals, every way beside cropping and skipping empty slices, and where the time goes."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.experiments.counting import BRAIN, WHOLE
from analyses.experiments.ways import EVERYTHING, VOLUMES
from analyses.figures.benchmark import number, table

Row = Mapping[str, str]
Rows = Sequence[Row]
GOALS = ("network", "threads", "scope", "method", "goal", "speed-up", "ceiling", "labels changed, stock's own",
         "Dice, stock's", "")  # fmt: skip
WAYS = ("threads", "method", "volume", BRAIN, "ceiling", WHOLE, "ceiling", "labels changed", "Dice")
SHORT = ("network", "threads", "way", BRAIN, WHOLE, "ceilings", "labels changed, stock's own")
BOTH, COMPARED = VOLUMES[True, True], ("stock", "conservative, uniform windows")
PROFILE = ("network", "method", "operator", "calls", "ms", "share")
# Okabe and Ito 2008, darker where less is looked at.
THIN = {"linewidth": 0.8}
COLOURS = dict(zip(VOLUMES.values(), ("#0072b2", "#56b4e9", "#d55e00", "#e69f00"), strict=True))


def goal_lines(rows: Rows) -> list[str]:
    """Return the table of the judged rows: goal, measured, ceiling, labels, met or NOT MET."""
    return table(GOALS, *[
        (row["network"], row["threads"], row["scope"], row["method"], number(row["goal"]), _speed_up(row),
         number(row["ceiling"]), _labels(row), f"{_digits(row['dice'])}, {_digits(row['dice_stock'])}", _verdict(row))
        for row in rows if row["goal"]
    ])  # fmt: skip


def markdown(rows: Rows, profile: Rows) -> list[str]:
    """Return the goals, a table of all ways for each network, and the profile of one slice."""
    lines = goal_lines(rows)
    for network in dict.fromkeys(row["network"] for row in rows):
        lines += ["", f"{network}: speed-up over stock on all of the volume", ""]
        lines += _ways([row for row in rows if row["network"] == network])
    return [*lines, "", "One slice with brain on one thread, by operator, in itself", "", *_profile(profile)]


def short(rows: Rows) -> list[str]:
    """Return one table for a reader in a hurry: all of the volume, and the brain's box without empty slices."""
    lines: list[Sequence[str]] = [SHORT]
    for row in rows:
        volume = row["volume"]
        if row["scope"] != BRAIN or not (row["goal"] or (volume == BOTH and row["method"] in COMPARED)):
            continue
        whole = _same(rows, row, WHOLE)
        found = [f"{_speed_up(r)}{_goal(r)}" for r in (row, whole)]
        words = row["method"] if volume == EVERYTHING else f"{row['method']}; {volume}"
        ceilings = f"{number(row['ceiling'])}, {number(whole['ceiling'])}"
        lines.append((row["network"], row["threads"], words, *found, ceilings, _labels(whole)))
    return table(*lines)


def _goal(row: Row) -> str:
    return f"; goal {number(row['goal'])}: {_verdict(row)}" if row["goal"] else ""


def _same(rows: Rows, row: Row, scope: str) -> Row:
    """Return the row of another scope that is the same otherwise."""
    names = ("network", "threads", "method", "volume")
    (found,) = (r for r in rows if r["scope"] == scope and all(r[name] == row[name] for name in names))
    return found


def _ways(rows: Rows) -> list[str]:
    lines: list[Sequence[str]] = [WAYS]
    for row in (row for row in rows if row["scope"] == BRAIN):
        names, whole = ("threads", "method", "volume"), _same(rows, row, WHOLE)
        speed = [cell for r in (row, whole) for cell in (_speed_up(r), number(r["ceiling"]))]
        changed = f"{whole['labels_changed']} of {whole['labels']}"
        lines.append((*(row[name] for name in names), *speed, changed, _digits(row["dice"])))
    return table(*lines)


def _profile(rows: Rows) -> list[str]:
    return table(PROFILE, *[
        (row["network"], row["method"], f"`{row['operator']}`" if "::" in row["operator"] else row["operator"],
         f"{float(row['calls']):.0f}", number(1e3 * float(row["seconds"])), f"{float(row['share']):.1%}")
        for row in rows
    ])  # fmt: skip


def _digits(dice: str) -> str:
    return f"{float(dice):.4f}"


def _speed_up(row: Row) -> str:
    if row["subjects"] == "1":
        return f"**{number(row['speed_up'])}**"
    return f"**{number(row['speed_up'])}** ({number(row['low'])} to {number(row['high'])})"


def _labels(row: Row) -> str:
    return f"{row['labels_changed']}, {row['stock_changed']} of {row['labels']}"


def _verdict(row: Row) -> str:
    if row["met"] == "True":
        return "met"
    return "NOT MET" if row["labels_kept"] == "True" else "NOT MET: labels"


def draw(rows: Rows, footer: str) -> Figure:
    """Return bars of the speed-up of each way, whiskers from the lowest to the highest subject, and the goals.

    A row of panels for each network and thread count; slices with brain on the left, whole volumes on the right.
    """
    panels = list(dict.fromkeys((row["network"], row["threads"]) for row in rows))
    figure, axes = plt.subplots(len(panels), 2, figsize=(13, 1.2 + 2.7 * len(panels)), sharey="row", squeeze=False,
                                layout="constrained", width_ratios=(1, 1.6))  # fmt: skip
    for line, (network, threads) in zip(axes, panels, strict=True):
        here = [row for row in rows if (row["network"], row["threads"]) == (network, threads)]
        for axis, scope in zip(line, (BRAIN, WHOLE), strict=True):
            _panel(axis, [row for row in here if row["scope"] == scope])
            name = f"{network}, {threads} thread{'s' if threads != '1' else ''}: {scope}"
            axis.set_title(name, fontsize=9, loc="left")
        line[0].set_ylabel("speed-up over torch")
    handles = axes[0, 1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def _panel(axis: Axes, rows: Rows) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    # An empty slice is no slice with brain: there is nothing to skip.
    volumes = list(VOLUMES.values()) if rows[0]["scope"] == WHOLE else [VOLUMES[c, False] for c in (False, True)]
    width = 0.8 / len(volumes)
    for k, volume in enumerate(volumes):
        found = {row["method"]: row for row in rows if row["volume"] == volume}
        x = [i + (k - (len(volumes) - 1) / 2) * width for i in range(len(methods))]
        value, low, high = ([float(found[m][name]) for m in methods] for name in ("speed_up", "low", "high"))
        whiskers = [[max(0.0, v - a) for v, a in zip(value, low, strict=True)],
                    [max(0.0, b - v) for v, b in zip(value, high, strict=True)]]  # fmt: skip
        axis.bar(x, value, width * 0.94, yerr=whiskers, color=COLOURS[volume], label=volume, error_kw=THIN)
        ceilings = [float(found[m]["ceiling"]) for m in methods]
        axis.plot(x, ceilings, linestyle="none", marker="_", color="0.55", markersize=9, zorder=3,
                  label="ceiling: 1 / executed share" if volume == EVERYTHING else None)  # fmt: skip
        if volume == EVERYTHING:
            _goals(axis, x, [found[m]["goal"] for m in methods], width)
    axis.axhline(1, color="0.2", linewidth=0.8)
    words = [method.replace(", ", ",\n").replace(" windows", "\nwindows") for method in methods]
    axis.set_xticks(range(len(methods)), words, fontsize=7)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _goals(axis: Axes, x: Sequence[float], goals: Sequence[str], width: float) -> None:
    label: str | None = "goal"
    for place, goal in zip(x, goals, strict=True):
        if goal:
            ends = [place - width / 2, place + width / 2]
            axis.plot(ends, [float(goal)] * 2, color="black", linewidth=2, label=label)
            label = None
