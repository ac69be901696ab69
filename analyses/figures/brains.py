"""Figures 5 to 8 and 14 of the paper: what is skipped by layer and by slice, and the scores by slice and structure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.experiments.counting import BRAIN, TOTAL
from analyses.figures.blocks import mark_blocks

Rows = Sequence[Mapping[str, str]]
# Okabe and Ito 2008, each with a marker and a line style of its own.
STYLES = (
    ("#0072b2", "o", "-"), ("#d55e00", "s", "-"), ("#009e73", "^", "-"), ("#cc79a7", "v", "-"), ("#56b4e9", "D", "--"),
    ("#e69f00", "P", "--"), ("0.45", "X", "--"), ("0.2", "*", "--"),
)  # fmt: skip
STOCK, NOISY = "stock", "noisy input"


def name_of(row: Mapping[str, str]) -> str:
    """Return a method in a few words."""
    if row["method"] in (STOCK, NOISY):
        return {"stock": "torch", "noisy input": "noisy input"}[row["method"]]
    words = [row["pooling"], f"t2 = {float(row['threshold']):g}"] if row["pooling"] else []
    return ", ".join([*words, *(["uniform windows"] if row["uniform"] == "True" else [])])


def draw_skipped(layers: Rows, slices: Rows, title: str, footer: str) -> Figure:
    """Return Figures 5 and 8: the share of skipped windows of each convolution, and of each slice, by method.

    Args:
        layers, slices: Of the tables of `segmentation` or `denoising`; means over subjects are drawn.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(1.35, 1))
    counted = [row for row in layers if row["scope"] == BRAIN and row["layer"] != TOTAL]
    names = list(dict.fromkeys(row["layer"] for row in counted))
    for (method, part), (colour, marker, line) in zip(_by_method(counted), STYLES, strict=False):
        shares = [_sum(part, "skipped", layer=n) / _sum(part, "windows", layer=n) for n in names]
        left.plot(range(len(names)), shares, color=colour, marker=marker, markersize=3, linewidth=1, linestyle=line,
                  label=method)  # fmt: skip
    mark_blocks(left, names)
    left.set_ylabel("skipped windows, brain slices")
    seen = [row for row in slices if row.get("windows")]
    for (_, part), (colour, _, line) in zip(_by_method(seen), STYLES, strict=False):
        right.plot(*_mean_over_subjects(part, "window_share"), color=colour, linewidth=1.1, linestyle=line)
    right.set(xlabel="slice of the conformed volume", ylabel="skipped windows")
    for axis in (left, right):
        axis.set_ylim(-0.02, 1.02)
        axis.spines[["top", "right"]].set_visible(False)
    _finish(figure, left, title, footer)
    return figure


def draw_scores(slices: Rows, column: str, label: str, title: str, footer: str) -> Figure:
    """Return Figures 6 and 7: a score of each slice, mean over subjects, torch and the methods.

    Args:
        column: Such as `dice` or `psnr`; slices without a number are left out.
    """
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    rows = [row for row in slices if row.get(column) not in ("", "nan", None)]
    wide = {"torch": "0.75", "noisy input": "0.9"}
    found = dict(_by_method(rows))
    for method in (name for name in wide if name in found):
        axis.plot(*_mean_over_subjects(found.pop(method), column), color=wide[method], linewidth=5, label=method)
    for (method, part), (colour, _, line) in zip(found.items(), STYLES, strict=False):
        axis.plot(*_mean_over_subjects(part, column), color=colour, linewidth=1, linestyle=line, label=method)
    axis.set(xlabel="slice of the conformed volume", ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    _finish(figure, axis, title, footer)
    return figure


def draw_structures(dice: Rows, methods: Sequence[str], title: str, footer: str) -> Figure:
    """Return Figure 14: Dice of each structure and subject for torch and some methods (names as of `name_of`)."""
    figure, axis = plt.subplots(figsize=(11, 4.4), layout="constrained")
    rows = [row for row in dice if row["structure"] != "background" and row["dice"] not in ("", "nan")]
    structures = list(dict.fromkeys(row["structure"] for row in rows))
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    for m, method in enumerate(methods):
        for s, subject in enumerate(subjects):
            found = {r["structure"]: float(r["dice"]) for r in rows if name_of(r) == method and r["subject"] == subject}
            places = [i + (m - (len(methods) - 1) / 2) * 0.24 for i, n in enumerate(structures) if n in found]
            colour, _, _ = STYLES[s % len(STYLES)]
            axis.plot(places, [found[n] for n in structures if n in found], linestyle="none", color=colour,
                      marker="os^vD"[m], markersize=4, markerfacecolor="white" if m else colour)  # fmt: skip
    for m, method in enumerate(methods):
        axis.plot([], [], "os^vD"[m], color="0.3", markersize=4, label=method, markerfacecolor="white" if m else "0.3")
    for s, subject in enumerate(subjects):
        axis.plot([], [], color=STYLES[s % len(STYLES)][0], linewidth=3, label=f"subject {subject}")
    axis.set_xticks(range(len(structures)), structures, rotation=35, ha="right", fontsize=8)
    axis.set(ylabel="Dice against the manual labels", ylim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)
    _finish(figure, axis, title, footer)
    return figure


def _by_method(rows: Rows) -> list[tuple[str, Rows]]:
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        found[name_of(row)].append(row)
    return list(found.items())


def _sum(rows: Rows, column: str, layer: str) -> int:
    return sum(int(row[column]) for row in rows if row["layer"] == layer)


def _mean_over_subjects(rows: Rows, column: str) -> tuple[list[float], list[float]]:
    """Return slices and means, each of as many slices as lie between two of one subject: every subject is in each."""
    subjects: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        subjects[row["subject"]].append(int(row["slice"]))
    step = min((b - a for found in subjects.values() for a, b in pairwise(sorted(set(found)))), default=1)
    bins: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        bins[int(row["slice"]) // step].append(float(row[column]))
    x = sorted(bins)
    return [i * step + (step - 1) / 2 for i in x], [fmean(bins[i]) for i in x]


def _finish(figure: Figure, axis: Axes, title: str, footer: str) -> None:
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
