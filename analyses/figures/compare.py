"""Which way to be small costs what? Dice against wall clock, coloured by significant bits."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from analyses.experiments.comparison.networks import STOCK
from mcaprobe.errors import InputError

Row = Mapping[str, str]
Rows = Sequence[Row]


def expect_stock(rows: Rows) -> None:
    """Raise InputError where the row is missing that all others are held against."""
    if not any(row["network"] == STOCK for row in rows):
        raise InputError(f"Expected a row of {STOCK!r}, which all others are held against: run it, too.")


def draw(rows: Rows, times: Rows, footer: str) -> Figure:
    """Return Dice against milliseconds, a panel for each number of threads: numbered points, hollow without bits.

    Those that no other one beats in both are joined. The numbers are those of the list beside the panels.
    """
    counts = sorted({int(row["threads"]) for row in times})
    figure = Figure((6.2 * len(counts) + 3.6, 6.0), layout="constrained")
    *axes, names = figure.subplots(1, len(counts) + 1, width_ratios=[*(6.2 for _ in counts), 3.6], squeeze=False)[0]
    for axis, count in zip(axes, counts, strict=True):
        points = _panel(axis, at(rows, times, count), count)
    figure.colorbar(points, ax=axes, label="significant bits of the logits, emulated", shrink=0.8)
    names.axis("off")
    names.set_title("Network", fontsize=9, loc="left")
    for i, row in enumerate(rows):
        names.text(0, 0.98 - i / (len(rows) + 1), f"{i + 1}  {row['network']}", fontsize=7.5, va="top",
                   transform=names.transAxes)  # fmt: skip
    figure.supxlabel(footer, fontsize=7)
    return figure


def _panel(axis: Axes, rows: Rows, count: int) -> PathCollection:
    seen, unseen = [r for r in rows if r["bits"]], [r for r in rows if not r["bits"]]
    points = axis.scatter(
        [float(r["ms"]) for r in seen], [float(r["dice"]) for r in seen], c=[float(r["bits"]) for r in seen],
        cmap="cividis", s=60, zorder=3,
    )  # fmt: skip
    axis.scatter([float(r["ms"]) for r in unseen], [float(r["dice"]) for r in unseen], facecolors="white",
                 edgecolors="0.3", s=60, zorder=3, label="no bits: not emulated")  # fmt: skip
    for row in rows:
        x, y = float(row["ms"]), float(row["dice"])
        axis.plot([x, x], [float(row["dice_low"]), float(row["dice_high"])], color="0.8", linewidth=0.8, zorder=1)
        axis.annotate(row["number"], (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, zorder=4)
    front = pareto(rows)
    axis.plot([float(r["ms"]) for r in front], [float(r["dice"]) for r in front], color="#d55e00", linewidth=1,
              zorder=2, label="no other is faster and as good")  # fmt: skip
    axis.set_xlabel("milliseconds of the timed volumes")
    axis.set_ylabel("Dice, mean of classes and subjects, 95 % interval")
    axis.set_title(f"{count} thread{'s' if count > 1 else ''}")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    return points


def at(rows: Rows, times: Rows, threads: int) -> list[dict[str, str]]:
    """Return the rows with their times on so many threads and their numbers in the list."""
    clock = {row["network"]: row for row in times if int(row["threads"]) == threads}
    return [
        {**row, **clock[row["network"]], "number": str(i + 1)} for i, row in enumerate(rows) if row["network"] in clock
    ]


def pareto(rows: Rows) -> list[Row]:
    """Return the rows that no other one beats in Dice without taking longer, from the fastest on."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (float(r["ms"]), -float(r["dice"]))):
        if not front or float(row["dice"]) > float(front[-1]["dice"]):
            front.append(row)
    return front
