"""Does half precision change what aggressive NaNs do to a classifier? Accuracy by format, threshold and approach."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.figures.thresholds import TITLES, panels, thresholds, value
from analyses.figures.tolerances import stock

Rows = Sequence[Mapping[str, str]]
PAPER = (0.10, 0.17)  # reported for float16 and bfloat16
APPROACHES = {"mean": "A", "max_normal": "B"}
# Okabe and Ito 2008: a colour for each approach, hatched at the lower threshold.
COLOURS = {"mean": "#0072b2", "max_normal": "#d55e00"}
HATCHES = ("", "////")
BAR = 0.16


def draw(rows: Rows, footer: str) -> Figure:
    """Return a panel for each network: bars of accuracy by format, torch's own and each threshold and approach.

    Args:
        rows: Of the experiment `precision`.
        footer: n, threads and the like.
    """
    return panels(rows, (5.4, 4.4), _panel, "accuracy", 3, footer)


def markdown(rows: Rows) -> list[str]:
    """Return the table of accuracies: a line for each network, approach and threshold, a column for each format."""
    formats = _formats(rows)
    lines = [f"| network | approach | t2 | {' | '.join(formats)} |", "| --- |" + " --- |" * (2 + len(formats))]
    for network in dict.fromkeys(row["network"] for row in rows):
        part = [row for row in rows if row["network"] == network]
        torch = [float(stock(_in(part, name))["accuracy"]) for name in formats]
        lines.append(_line(TITLES.get(network, network), "torch", "", torch))
        for fill, approach in APPROACHES.items():
            for t in thresholds(part):
                found = [value(_in(part, name), "accuracy", t, fill) for name in formats]
                lines.append(_line(TITLES.get(network, network), approach, f"{t:g}", found))
    return lines


def _line(network: str, approach: str, threshold: str, accuracies: Sequence[float]) -> str:
    return f"| {network} | {approach} | {threshold} | {' | '.join(f'{a:.4f}' for a in accuracies)} |"


def _panel(axis: Axes, rows: Rows) -> None:
    formats = _formats(rows)
    series = [("torch", "0.6", "", [float(stock(_in(rows, name))["accuracy"]) for name in formats])]
    for fill, approach in APPROACHES.items():
        for t, hatch in zip(thresholds(rows), HATCHES, strict=False):
            found = [value(_in(rows, name), "accuracy", t, fill) for name in formats]
            series.append((f"approach {approach}, t2 = {t:g}", COLOURS[fill], hatch, found))
    for k, (label, colour, hatch, found) in enumerate(series):
        places = [i + (k - (len(series) - 1) / 2) * BAR for i in range(len(formats))]
        bars = axis.bar(places, found, BAR, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5, label=label)
        axis.bar_label(bars, [f"{a:.3f}".lstrip("0") for a in found], fontsize=6.5, padding=1)
    half = [i for i, name in enumerate(formats) if name != "float32"]
    axis.fill_between([min(half) - 0.48, max(half) + 0.48], *PAPER, color="0.3", alpha=0.25, linewidth=0, zorder=0,
                      label="the paper's, half precision")  # fmt: skip
    axis.set_xticks(range(len(formats)), formats)
    axis.set_ylim(0, 1.06)
    axis.spines[["top", "right"]].set_visible(False)


def _formats(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["format"] for row in rows))


def _in(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["format"] == name]
