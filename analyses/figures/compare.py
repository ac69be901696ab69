"""Which way to be small costs what? Dice against wall clock, both against stock, coloured by significant bits."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

Row = Mapping[str, str]
Rows = Sequence[Row]
CLOSE, SLOW = 0.02, 2.0  # loss of Dice and share of stock's time within which networks have a panel of their own
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)


def draw(rows: Rows, times: Rows, footer: str) -> Figure:
    """Return the loss of Dice against the share of stock's time: numbered points, hollow without bits.

    A column for each number of threads; above, those that lose next to nothing, below, all. Those that no other one
    beats in both are joined. The numbers are those of the list beside the panels.
    """
    counts = sorted({int(row["threads"]) for row in times})
    figure = Figure((6.2 * len(counts) + 3.8, 9.5), layout="constrained")
    widths = [*(6.2 for _ in counts), 3.8]
    grid = figure.subplots(2, len(counts) + 1, width_ratios=widths, squeeze=False)
    bits = [float(row["bits"]) for row in rows if row["bits"]]
    colours = {"cmap": "cividis", "norm": Normalize(min(bits), max(bits))}
    for column, count in enumerate(counts):
        placed = at(rows, times, count)
        for axis, close in zip(grid[:, column], (True, False), strict=True):
            shown = [row for row in placed if not close or (loss(row) >= -CLOSE and share(row) <= SLOW)]
            points = _panel(axis, shown, placed, colours)
            threads = f"{count} thread{'s' if count > 1 else ''}"
            limits = f"at most {CLOSE} lost, {SLOW:g} times stock's time" if close else "all"
            axis.set_title(f"{threads}: {limits}")
        grid[0, column].set_ylim(-1.15 * CLOSE, 0.75 * CLOSE)
        grid[0, column].legend(fontsize=8, frameon=False, loc="lower right")
    figure.colorbar(points, ax=grid[:, :-1], label="significant bits of the logits, emulated", shrink=0.6, pad=0.01)
    _list(grid[0, -1], rows)
    grid[1, -1].axis("off")
    figure.supxlabel(footer, fontsize=7)
    return figure


def _list(axis: Axes, rows: Rows) -> None:
    axis.axis("off")
    axis.set_title("Network", fontsize=9, loc="left")
    for i, row in enumerate(rows):
        axis.text(0, 0.98 - i / (len(rows) + 1), f"{i + 1}  {row['network']}", fontsize=7.5, va="top",
                  transform=axis.transAxes)  # fmt: skip


def _panel(axis: Axes, rows: Rows, everything: Rows, colours: Mapping[str, Any]) -> PathCollection:
    seen, unseen = [r for r in rows if r["bits"]], [r for r in rows if not r["bits"]]
    points = axis.scatter(
        [share(r) for r in seen], [loss(r) for r in seen], c=[float(r["bits"]) for r in seen], s=60, zorder=3, **colours
    )
    axis.scatter([share(r) for r in unseen], [loss(r) for r in unseen], facecolors="white",
                 edgecolors="0.3", s=60, zorder=3, label="no bits: not emulated")  # fmt: skip
    for row in rows:
        x, y = share(row), loss(row)
        ends = [float(row["difference_low"]), float(row["difference_high"])]
        axis.plot([x, x], ends, color="0.7", linewidth=1, zorder=1)
        axis.annotate(row["number"], (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, zorder=4)
    front = [row for row in pareto(everything) if row in rows]
    axis.plot([share(r) for r in front], [loss(r) for r in front], color="#d55e00", linewidth=1,
              zorder=2, label="no other is faster and as good")  # fmt: skip
    axis.axvline(1, color="0.85", linewidth=0.8, zorder=0)
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.set_xscale("log")
    axis.set_xticks(TICKS)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(min(map(share, rows)) / 1.15, max(map(share, rows)) * 1.2)
    axis.set_xlabel("time, as a share of stock's in the same minutes")
    axis.set_ylabel("Dice minus stock's, paired, Student's 95 % interval")
    axis.spines[["top", "right"]].set_visible(False)
    return points


def share(row: Row) -> float:
    """Return a row's time as a share of stock's."""
    return 1 / float(row["speed_up"])


def loss(row: Row) -> float:
    """Return a row's Dice minus stock's."""
    return float(row["difference"])


def at(rows: Rows, times: Rows, threads: int) -> list[dict[str, str]]:
    """Return the rows with their times on so many threads and their numbers in the list."""
    clock = {row["network"]: row for row in times if int(row["threads"]) == threads}
    return [
        {**row, **clock[row["network"]], "number": str(i + 1)} for i, row in enumerate(rows) if row["network"] in clock
    ]


def pareto(rows: Rows) -> list[Row]:
    """Return the rows that no other one beats in Dice without taking longer, from the fastest on."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (share(r), -loss(r))):
        if not front or loss(row) > loss(front[-1]):
            front.append(row)
    return front
