"""How good a proxy for an unstable index is a tie? ROC, precision and recall, MCC over the tolerances, by pooling."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.results_files import table
from analyses.validation.agreement import agreement_of
from mcaprobe.agreement import Agreement
from nanops import PAPER

Rows = Sequence[Mapping[str, str]]
# Okabe and Ito 2008, a marker for each kind as well.
KINDS = {"absolute": ("#0072b2", "o"), "relative": ("#009e73", "s"), "ulps": ("#d55e00", "^")}
STYLES = {"1": "-", "2": "--", "3": ":"}
AREAS = "| pooling | kind | t1 | windows | changed | area under ROC | average precision |"
HELD_OUT = "| pooling | setting | subjects | tolerance, t1 | MCC (lowest to highest) | precision | recall |"


def draw(rows: Rows, footer: str) -> Figure:
    """Return a column for each pooling: ROC, precision over recall, and MCC over the absolute tolerance.

    Args:
        rows: The sweep; counts of all subjects together make the points, single subjects the thin lines.
        footer: n and the like.
    """
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure, axes = plt.subplots(3, len(layers), figsize=(2.9 * len(layers), 8.2), squeeze=False, layout="constrained")
    for column, layer in zip(axes.T, layers, strict=True):
        part = [row for row in rows if row["layer"] == layer]
        _roc(column[0], part)
        _precision_recall(column[1], part)
        _mcc(column[2], part)
        column[0].set_title(layer, fontsize=10, loc="left")
    for axis, label in zip(axes[:, 0], ("true positive rate", "precision", "MCC"), strict=True):
        axis.set_ylabel(label)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more = axes[2, 0].get_legend_handles_labels()
    figure.legend(handles + more[0], labels + more[1], loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def _points(rows: Rows, kind: str, max_ties: str = "1") -> list[tuple[float, Agreement]]:
    """Return tolerance and counts of all subjects together, in the order of the tolerances."""
    found: dict[float, Agreement] = {}
    for row in rows:
        if (row["kind"], row["max_ties"]) == (kind, max_ties):
            value = float(row["value"])
            found[value] = found.get(value, Agreement()) + agreement_of(row)
    return sorted(found.items())


def _paper(rows: Rows) -> Agreement:
    return next(c for value, c in _points(rows, PAPER.kind) if abs(value - PAPER.value) < 1e-9 * PAPER.value)


def _rates(c: Agreement) -> tuple[float, float]:
    stable = c.elements - c.b
    return (c.a - c.both) / stable if stable else 0.0, c.recall or 0.0


def _roc(axis: Axes, rows: Rows) -> None:
    for kind, (colour, marker) in KINDS.items():
        at = [_rates(c) for _, c in _points(rows, kind)]
        axis.plot(*zip(*at, strict=True), color=colour, marker=marker, ms=3, lw=1, label=f"{kind} tolerance, t1 = 1")
    axis.plot(*_rates(_paper(rows)), "*", color="black", ms=11, label="the paper's 1e-7, t1 = 1", ls="none")
    axis.plot([0, 1], [0, 1], color="0.7", lw=0.8, label="chance")
    axis.set(xlabel="false positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _precision_recall(axis: Axes, rows: Rows) -> None:
    for kind, (colour, marker) in KINDS.items():
        at = [(c.recall, c.precision) for _, c in _points(rows, kind) if c.recall is not None and c.precision]
        axis.plot(*zip(*at, strict=True), color=colour, marker=marker, ms=3, lw=1)
    paper = _paper(rows)
    if paper.recall is not None and paper.precision is not None:
        axis.plot(paper.recall, paper.precision, "*", color="black", ms=11)
    chance = paper.chance_precision
    if chance is not None:
        axis.axhline(chance, color="0.7", lw=0.8)
    axis.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))


def _mcc(axis: Axes, rows: Rows) -> None:
    colour = KINDS["absolute"][0]
    for subject in dict.fromkeys(row["subject"] for row in rows):
        own = _points([row for row in rows if row["subject"] == subject], "absolute")
        axis.plot([v for v, _ in own], [c.mcc or 0 for _, c in own], color=colour, lw=0.5, alpha=0.4)
    for max_ties, style in STYLES.items():
        at = _points(rows, "absolute", max_ties)
        label = "absolute tolerance, all subjects (thin: each), t1 = 1" if max_ties == "1" else f"t1 = {max_ties}"
        axis.plot([v for v, _ in at], [c.mcc or 0 for _, c in at], color=colour, ls=style, lw=1.5, label=label)
    axis.axvline(PAPER.value, color="black", lw=0.8)
    axis.set(xscale="log", xlabel="absolute tolerance", ylim=(-0.05, 1.02))


def markdown(sweep: Rows, areas: Rows, held_out: Rows) -> list[str]:
    """Return the tables: areas under the curves, and what held-out subjects say.

    Args:
        sweep, areas, held_out: Rows of `calibrate`.
    """
    subjects = len({row["subject"] for row in sweep})
    about = f"n = {subjects} subject{'s' if subjects > 1 else ''}; means over subjects and slices."
    lines = [about, "", *table(AREAS, _areas(areas))]
    if held_out:
        lines += ["", *table(HELD_OUT, _held_out(held_out))]
    return lines


def _areas(rows: Rows) -> Iterator[Sequence[str]]:
    keys = dict.fromkeys((row["layer"], row["kind"], row["max_ties"]) for row in rows)
    for layer, kind, max_ties in keys:
        part = [row for row in rows if (row["layer"], row["kind"], row["max_ties"]) == (layer, kind, max_ties)]
        windows, changed = (sum(int(row[name]) for row in part) for name in ("windows", "changed"))
        known = [row for row in part if row["auroc"]]
        means = [f"{fmean(float(row[name]) for row in known):.5f}" if known else "" for name in (
            "auroc", "average_precision")]  # fmt: skip
        yield layer, kind, max_ties, f"{windows:,}", f"{changed:,} ({changed / windows:.1%})", *means


def _held_out(rows: Rows) -> Iterator[Sequence[str]]:
    for layer in dict.fromkeys(row["layer"] for row in rows):
        for setting in ("paper", "held out", "best"):
            part = [row for row in rows if (row["layer"], row["setting"]) == (layer, setting)]
            if not part:
                continue
            used = dict.fromkeys(f"{row['kind']} {float(row['value']):g}, {row['max_ties']}" for row in part)
            scores = [float(row["mcc"]) for row in part if row["mcc"]]
            score = f"{fmean(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})" if scores else ""
            means = (_mean(part, name) for name in ("precision", "recall"))
            yield layer, setting, str(len(part)), "; ".join(used), score, *means


def _mean(rows: Rows, column: str) -> str:
    values = [float(row[column]) for row in rows if row[column]]
    return f"{fmean(values):.4f}" if values else ""
