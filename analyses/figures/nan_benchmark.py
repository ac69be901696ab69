"""The speed of the NaN operators as the README's tables, and the paper's Figure 3 against torch's own convolution."""

from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from analyses.benchmarks.nan_conv import GROWTH, TOTAL
from analyses.figures.benchmark import number, table, with_range

Row = Mapping[str, str]
Rows = Sequence[Row]


def markdown(rows: Rows) -> list[str]:
    """Return the lines of one table a part, with a column for each pattern, and of one table of the networks."""
    networks = {row["part"] for row in rows if row["subject"] == TOTAL}
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows if row["part"] not in networks):
        lines += ["", *_operators(part, [row for row in rows if row["part"] == part])]
    if networks:
        lines += ["", *_networks([row for row in rows if row["part"] in networks])]
    return lines[1:]


def short(rows: Rows) -> list[str]:
    """Return the tables of one thread, without the growing sizes, which have a figure."""
    return markdown([row for row in rows if row["part"] != GROWTH and row["threads"] == "1"])


def bounds_sentence(rows: Rows) -> str:
    """Return how many bounds are met on each number of threads, and by how much the others are missed."""
    parts = []
    for count in dict.fromkeys(row["threads"] for row in rows):
        here = [row for row in rows if row["threads"] == count and row["least"]]
        misses = [1 - float(row["speed_up"]) / float(row["least"]) for row in here if row["met"] != "True"]
        threads = f"{count} thread{'s' if count != '1' else ''}"
        by = f", the others missed by {_percents(min(misses), max(misses))}" if misses else ""
        parts.append(f"{len(here) - len(misses)} of {len(here)} on {threads}{by}")
    return f"Bounds met: {'; '.join(parts)}."


def _percents(low: float, high: float) -> str:
    one, two = (f"{100 * value:.1f}" for value in (low, high))
    return f"{one} %" if one == two else f"{one} to {two} %"


def pooling_sentence(rows: Rows) -> str:
    """Return the range of each operator's speed-up, and how many of its bounds are met."""
    parts = []
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        found = [float(row["speed_up"]) for row in here]
        met = sum(row["met"] == "True" for row in here)
        least = number(here[0]["least"])
        parts.append(f"{part} {number(min(found))} to {number(max(found))} times as fast as torch's, median "
                     f"{number(median(found))} (bound {least}: {met} of {len(here)} met)")  # fmt: skip
    return "; ".join(parts) + "."


def _operators(part: str, rows: Rows) -> list[str]:
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    lines = [(part, "threads", "torch, ms", *patterns)]
    for subject, threads in dict.fromkeys((row["subject"], row["threads"]) for row in rows):
        found = {row["pattern"]: row for row in rows if (row["subject"], row["threads"]) == (subject, threads)}
        stock = next(iter(found.values()))
        cells = [_cell(found[pattern]) if pattern in found else "" for pattern in patterns]
        milliseconds = f"{number(stock['stock_ms'])}, {stock['stock_format']}"
        lines.append((subject, threads, milliseconds, *cells))
    return table(*lines)


def _cell(row: Row) -> str:
    share = float(row["skipped"] or 0)
    ideal = f"; {100 * share:.0f} % skipped, ideal {number(row['ideal'])}" if share else ""
    return with_range(row, "speed_up") + ideal + _bound(row)


def _bound(row: Row) -> str:
    return f"; bound {number(row['least'])}: {'met' if row['met'] == 'True' else 'NOT MET'}" if row["least"] else ""


def _networks(rows: Rows) -> list[str]:
    lines = [("network, input", "NaN", "threads", "convolutions", "worst", "median", TOTAL)]
    for total in (row for row in rows if row["subject"] == TOTAL):
        names = ("part", "pattern", "threads")
        layers = [r for r in rows if r is not total and all(r[name] == total[name] for name in names)]
        found = [float(row["speed_up"]) for row in layers]
        about = (total["part"], total["pattern"], total["threads"], str(len(found)))
        speed_up = f"**{number(total['speed_up'])}**" + _bound(total)
        lines.append((*about, number(min(found)), number(median(found)), speed_up))
    return table(*lines)


def draw_growth(rows: Rows, footer: str) -> Figure:
    """Return speed-up over the size of the image, a line for each share of NaN and a panel for each thread count."""
    here = [row for row in rows if row["part"] == GROWTH]
    counts = list(dict.fromkeys(row["threads"] for row in here))
    figure, axes = plt.subplots(1, len(counts), figsize=(5.2 * len(counts), 3.8), sharey=True, squeeze=False)
    for axis, count in zip(axes[0], counts, strict=True):
        for pattern in dict.fromkeys(row["pattern"] for row in here):
            line = [row for row in here if (row["threads"], row["pattern"]) == (count, pattern)]
            sizes = [int(row["subject"].rsplit("x", 1)[1]) for row in line]
            low, middle, high = ([float(row[n]) for row in line] for n in ("speed_up_low", "speed_up", "speed_up_high"))
            skipped = 100 * sum(float(row["skipped"]) for row in line) / len(line)
            axis.plot(sizes, middle, marker="o", label=f"{pattern} NaN ({skipped:.0f} % skipped)")
            axis.fill_between(sizes, low, high, alpha=0.2)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xticks=sizes, xlabel="image size, pixels a side",
                 title=f"{count} thread{'s' if count != '1' else ''}")  # fmt: skip
        axis.set_xticklabels([str(size) for size in sizes])
        axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("speed-up over torch's own convolution")
    axes[0][0].legend(fontsize=8)
    figure.text(0.01, 0.01, footer, fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return figure
