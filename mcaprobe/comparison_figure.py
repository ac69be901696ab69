"""Where in a network do two runs differ?  Bits, ratios and the agreement of the unstable masks over the layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from mcaprobe.comparison import ComparedRow
from mcaprobe.metrics import PREFIX
from mcaprobe.page import MARGIN, NOTE, NOTE_POINTS, TITLE_POINTS, WIDTH, wrapped
from mcaprobe.regions import ALL
from mcaprobe.selection import components

# Okabe and Ito 2008: told apart with any colour vision; each curve has a marker of its own besides.
A, B, DECISIONS, PRECISION, RECALL = "#86bfe6", "#a03c00", "#009e73", "#b5578f", "#2b8fd0"
FEW = 100  # unstable elements (A and B together), changed decisions (each): what rests on fewer is not drawn
PANEL, BETWEEN, LEFT, RIGHT, NAMES = 1.55, 0.3, 0.55, 0.1, 0.62  # inches
SMALL = 7.0  # points
FINE = (0.4, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 2.5)


def draw_comparison(rows: Sequence[ComparedRow], names: tuple[str, str], title: str, footer: str) -> Figure:
    """Draw three panels over the layers, in the order of execution, whole layers (region `all`).

    a: mean significant bits of A and B. b: standard deviations and index change rates, A over B, on a logarithmic
    axis; rates where both runs changed FEW decisions or more. c: Dice, precision and recall of A's unstable mask
    against B's, where A and B together mark FEW elements or more; in grey the share of elements that B marks.

    Args:
        rows: Of a Comparison; metrics are left out.
        names: What A and what B is, in a few words.
        title: One line above the panels.
        footer: What A and B are, and what is stated below every picture; wrapped at the page width.
    Returns:
        A figure 7 inches wide, of 200 dots an inch unless `figure.savefig(path, dpi=...)` says another number.
    Raises:
        ValueError: no layer to draw.
    """
    shown = drawable(rows)
    if not shown:
        raise ValueError("Expected one layer or more to draw, got none.")
    head, notes = wrapped(title, TITLE_POINTS, "bold"), wrapped(footer, NOTE_POINTS)
    top, bottom = 0.15 * len(head) + 0.38, NAMES + 0.12 + NOTE * len(notes)
    height = top + 3 * PANEL + 2 * BETWEEN + bottom
    figure = Figure(figsize=(WIDTH, height), dpi=200, facecolor="white")
    panels = []
    for k, draw in enumerate((_bits, _ratios, _agreement)):
        low = bottom + (2 - k) * (PANEL + BETWEEN)
        width = (WIDTH - LEFT - RIGHT) / WIDTH
        axes = figure.add_axes((LEFT / WIDTH, low / height, width, PANEL / height))
        draw(axes, shown, names)
        _frame(axes, "abc"[k], shown, named=k == 2)
        panels.append(axes)
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.08 / height, "\n".join(head), fontsize=TITLE_POINTS, weight="bold", va="top")
    figure.text(left, 0.05 / height, "\n".join(notes), fontsize=NOTE_POINTS, color="0.35", va="bottom",
                linespacing=1.25)  # fmt: skip
    return figure


def drawable(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Return the rows of whole layers; metrics have no place in the order of execution."""
    return [row for row in rows if row.region == ALL and not row.layer.startswith(PREFIX)]


def _bits(axes: Axes, rows: Sequence[ComparedRow], names: tuple[str, str]) -> None:
    # A is a broad band below B's thin line: both are seen where they are equal.
    _curve(axes, rows, lambda row: row.bits_mean_a, A, "", f"A: {names[0]}", width=2.6)
    _curve(axes, rows, lambda row: row.bits_mean_b, B, "o", f"B: {names[1]}", width=0.7, size=1.6)
    axes.set_ylabel("mean significant bits")
    axes.set_ylim(bottom=0)


def _ratios(axes: Axes, rows: Sequence[ComparedRow], names: tuple[str, str]) -> None:
    axes.axhline(1, color="0.55", linewidth=0.6, zorder=1)
    _curve(axes, rows, lambda row: row.std_ratio, "0.15", "o", "standard deviations (root mean square)", size=2.0)
    _curve(axes, rows, _change_ratio, DECISIONS, "D", "rates of changed decisions", width=0, size=4.2)
    axes.set_ylabel("A over B")
    values = [v for row in rows for v in (row.std_ratio, _change_ratio(row)) if v is not None]
    reach = 1.15 * max([math.log2(1.25), *(abs(math.log2(v)) for v in values)])
    axes.set_yscale("log", base=2)
    axes.set_ylim(2**-reach, 2**reach)
    step = -(-int(reach) // 3)
    ticks = FINE if reach < 1.3 else [2.0**k for k in range(-3 * step, 3 * step + 1, step)]
    ticks = [tick for tick in ticks if abs(math.log2(tick)) <= reach]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticklabels([f"{tick:g}" for tick in ticks])


def _change_ratio(row: ComparedRow) -> float | None:
    a, b = row.index_change_rate_a, row.index_change_rate_b
    if a is None or b is None or min(a * row.samples_a, b * row.samples_b) * row.elements < FEW:
        return None
    return a / b


def _agreement(axes: Axes, rows: Sequence[ComparedRow], names: tuple[str, str]) -> None:
    def many(value: float | None, row: ComparedRow) -> float | None:
        marked = (row.unstable_a or 0) + (row.unstable_b or 0) - (row.unstable_both or 0)
        return value if marked >= FEW else None

    _curve(axes, rows, lambda row: many(row.dice, row), "0.1", "o", "Dice", size=2.2)
    _curve(axes, rows, lambda row: many(row.precision, row), PRECISION, "^", "precision of A", width=0, size=2.6)
    _curve(axes, rows, lambda row: many(row.recall, row), RECALL, "v", "recall of A", width=0, size=2.6)
    shares = [(i, row.unstable_b / row.elements) for i, row in enumerate(rows) if row.unstable_b is not None]
    axes.bar([i for i, _ in shares], [share for _, share in shares], width=1.0, color="0.8", linewidth=0, zorder=1,
             label="share of the elements that is unstable in B")  # fmt: skip
    axes.set_ylabel("agreement of unstable elements")
    axes.set_ylim(-0.03, 1.03)


def _curve(
    axes: Axes,
    rows: Sequence[ComparedRow],
    value: Callable[[ComparedRow], float | None],
    colour: str,
    marker: str,
    label: str,
    *,
    width: float = 0.9,
    size: float = 2.4,
) -> None:
    """Draw the layers that have a value, joined over those that have none (width 0: not joined)."""
    points = [(i, v) for i, row in enumerate(rows) if (v := value(row)) is not None]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=size, linewidth=width, label=label,
                  linestyle="-" if width else "none", markeredgewidth=0, zorder=3, clip_on=False)  # fmt: skip


def _frame(axes: Axes, letter: str, rows: Sequence[ComparedRow], *, named: bool) -> None:
    """Letter the panel, shade every other block of the model, write the blocks' names below, set the legend above."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, length=2, width=0.5)
    axes.yaxis.label.set_fontsize(SMALL)
    axes.set_xlim(-0.8, len(rows) - 0.2)
    axes.annotate(letter, (0, 1), (-LEFT * 72 + 6, 5), "axes fraction", "offset points", fontsize=9, weight="bold")
    blocks = _blocks([row.layer for row in rows])
    for i, (_, first, last) in enumerate(blocks):
        if i % 2:
            axes.axvspan(first - 0.5, last + 0.5, color="0.955", zorder=0, linewidth=0)
    named_blocks = _thinned(blocks, 40)
    axes.set_xticks([(first + last) / 2 for _, first, last in named_blocks])
    if named:
        axes.set_xticklabels([name for name, _, _ in named_blocks], rotation=35, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticklabels([])
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False,
                    fontsize=SMALL, borderaxespad=0.1, handlelength=1.8, columnspacing=1.2)  # fmt: skip


def _blocks(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return name, first and last position of each run of layers with the same outermost module."""
    for depth in (1, 2):
        found: list[tuple[str, int, int]] = []
        for i, name in enumerate(names):
            block = ".".join(components(name)[:depth])
            if found and found[-1][0] == block:
                found[-1] = (block, found[-1][1], i)
            else:
                found.append((block, i, i))
        if len(found) > 1:
            break
    return found


def _thinned(blocks: Sequence[tuple[str, int, int]], most: int) -> Iterable[tuple[str, int, int]]:
    return blocks[:: -(-len(blocks) // most)]
