"""Which way to be small costs what? Tables of all, and Dice against wall clock, coloured by significant bits."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from analyses.experiments.comparison.combined import combined, work
from analyses.experiments.comparison.networks import STOCK
from analyses.results_files import table
from mcaprobe.errors import InputError

Row = Mapping[str, str]
Rows = Sequence[Row]
ACCURACY = (
    "| network | Dice (95 % interval) | minus stock (95 % interval) | parameters (not 0) | MACs, M (not 0) "
    "| executed, M | of stock's | windows skipped |"
)
CLOCK = "| network | threads | ms | speed-up (range) | format | peak, MiB |"
DIGITS = (
    "| network | bits (95 % interval) | where the image is not 0 | worst layer | its bits | label flips | pool flips |"
)
COMBINED = (
    "| combination | threads | one alone | NaN alone | product | together | MACs of stock's: product | together |"
)
ANSWERS = "| question | network | against | threads | quantity | value | n |"
QUESTIONS = (
    "Dice and bits: means of paired differences (over subjects; over probed inputs) with Student's 95 % interval. "
    "Speed-ups: with the lowest and highest of the repetitions; of a product: the products of these."
)


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


def markdown(rows: Rows, times: Rows, dice: Rows, answered: Rows) -> list[str]:
    """Return the tables of all networks, from the rows as the CSVs have them, and what has no bits and why.

    Args:
        answered: `comparison.answers`, as a CSV has them.
    """
    missing = [f"* {row['network']}: no bits, since {row['no_bits']}." for row in rows if row["no_bits"]]
    stock = next(row for row in rows if row["network"] == STOCK)
    return [
        "## What is right, and what is multiplied", "", *table(ACCURACY, (_accuracy(row, stock) for row in rows)),
        "", "## Wall clock", "", *table(CLOCK, (_clock(row) for row in times)),
        "", "## Significant bits and decisions", "", *table(DIGITS, (_digits(row) for row in rows if row["bits"])),
        "", *missing, "", "## Do the savings multiply?", "",
        *table(COMBINED, (_combination(row) for row in combined(rows, times))),
        "", "## Dice by class, mean over subjects", "", *_by_class(rows, dice),
        "", "## The questions", "", QUESTIONS, "", *table(ANSWERS, (_answer(row) for row in answered)),
    ]  # fmt: skip


def _accuracy(row: Row, stock: Row) -> list[str]:
    dice, low, high = (f"{float(row[c]):.3f}" for c in ("dice", "dice_low", "dice_high"))
    difference, less, more = (f"{float(row[c]):+.3f}" for c in ("difference", "difference_low", "difference_high"))
    macs, dense = (f"{float(row[c]) / 1e6:.1f}" for c in ("macs_not_zero", "macs"))
    made = float(row["macs"]) * float(row["executed_share"]) / 1e6
    return [
        row["network"], f"{dice} ({low} to {high})", f"{difference} ({less} to {more})",
        f"{_whole(row['parameters'])} ({_whole(row['parameters_not_zero'])})", f"{dense} ({macs})", f"{made:.1f}",
        f"{work(row, stock):.2f}", f"{100 * float(row['windows_skipped']):.1f} %",
    ]  # fmt: skip


def _clock(row: Row) -> list[str]:
    speed = [f"{float(row[c]):.2f}" for c in ("speed_up", "speed_up_low", "speed_up_high")]
    return [
        row["network"], row["threads"], f"{float(row['ms']):.1f}", f"{speed[0]} ({speed[1]} to {speed[2]})",
        row["format"], f"{float(row['peak_bytes']) / 2**20:.1f}",
    ]  # fmt: skip


def _digits(row: Row) -> list[str]:
    bits, low, high = (f"{float(row[c]):.2f}" for c in ("bits", "bits_low", "bits_high"))
    inside, less, more = (f"{float(row[f'bits_where_image{c}']):.2f}" for c in ("", "_low", "_high"))
    flips = [f"{float(row[c]):.2g}" if row[c] else "" for c in ("label_flips", "pool_flips")]
    return [
        row["network"], f"{bits} ({low} to {high})", f"{inside} ({less} to {more})", row["worst_layer"],
        f"{float(row['worst_bits']):.2f}", *flips,
    ]  # fmt: skip


def _combination(row: Mapping[str, float | str]) -> list[str]:
    numbers = (f"{row[c]:.2f}" for c in ("alone", "nans", "product", "together", "work_product", "work"))
    return [str(row["network"]), str(row["threads"]), *numbers]


def _answer(row: Row) -> list[str]:
    value, low, high = (f"{float(row[c]):.3f}" if row[c] else "" for c in ("value", "low", "high"))
    words = [row[c] for c in ("question", "network", "against", "threads", "quantity")]
    return [*words, f"{value} ({low} to {high})" if low else value, row["n"]]


def _by_class(rows: Rows, dice: Rows) -> list[str]:
    classes = list(dict.fromkeys(row["class"] for row in dice))[1:]
    means = {(row["network"], k): row[f"dice_{i}"] for row in rows for i, k in enumerate(classes, 1)}
    head = f"| network | {' | '.join(classes)} |"
    each = {row["network"]: [means[row["network"], k] for k in classes] for row in rows}
    return table(head, ([name, *(f"{float(v):.3f}" if v else "" for v in values)] for name, values in each.items()))


def _whole(text: str) -> str:
    return f"{int(float(text)):,}"
