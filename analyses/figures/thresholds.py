"""Figure 9 of the paper: F1 and what is skipped, over the thresholds, for classifiers with aggressive NaNs."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, str]]
# Okabe and Ito 2008; each approach has a marker of its own as well.
LINES = {"mean": ("#0072b2", "o", "F1, approach A (mean)"), "max_normal": ("#d55e00", "s", "F1, approach B (maximum)")}
BARS = ("0.85", "0.7", "0.55", "0.4")
TITLES = {
    "mnist": "MNIST net",
    "mnist, pooling before ReLU": "MNIST net, pooling before ReLU",
    "mnist_nan": "MNIST net trained through its NaNs",
}
# The paper's accuracies (its F1 is a curve without numbers) at t2.
PAPER = {1.0: 0.9886, 0.85: 0.9885, 0.75: 0.9813, 0.65: 0.9265, 0.5: 0.1982}


def draw(rows: Rows, footer: str) -> Figure:
    """Return a panel for each network: bars of skipped windows by layer, lines of F1, the paper's accuracy in grey.

    Args:
        rows: Of the experiment `mnist`, float32.
        footer: n, threads and the like.
    """
    label = "F1; share of skipped windows (of all, by layer)"
    return panels(rows, (4.1, 4.2), _panel, label, 4, footer)


def panels(
    rows: Rows, size: tuple[float, float], panel: Callable[[Axes, Rows], None], label: str, columns: int, footer: str
) -> Figure:
    """Return a panel for each network beside one another, one legend above all, the footer below.

    Args:
        size: Of a panel, in inches.
        panel: Draws the rows of one network.
        label: Of the vertical axis.
        columns: Of the legend.
    """
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, axes = plt.subplots(1, len(networks), figsize=(size[0] * len(networks), size[1]), sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    for axis, network in zip(axes[0], networks, strict=True):
        panel(axis, [row for row in rows if row["network"] == network])
        axis.set_title(TITLES.get(network, network), fontsize=10, loc="left")
    axes[0, 0].set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False,
                  fontsize=8)  # fmt: skip
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def thresholds(rows: Rows) -> list[float]:
    """Return the thresholds of the rows, falling."""
    return sorted({float(row["threshold"]) for row in rows if row.get("threshold")}, reverse=True)


def value(rows: Rows, column: str, threshold: float, fill: str, layer: str = "total") -> float:
    """Return a number of one row."""
    (row,) = (
        row for row in rows
        if row.get("threshold") and float(row["threshold"]) == threshold and row["fill"] == fill
        and row["layer"] == layer
    )  # fmt: skip
    return float(row[column])


def _panel(axis: Axes, rows: Rows) -> None:
    at = thresholds(rows)
    layers = [layer for layer in dict.fromkeys(row["layer"] for row in rows) if layer != "total"]
    skipped = [layer for layer in layers if any(value(rows, "skipped", t, "mean", layer) for t in at)]
    windows = {t: value(rows, "windows", t, "mean") for t in at}
    below = [0.0] * len(at)
    for layer, colour in zip(skipped, BARS, strict=False):
        height = [value(rows, "skipped", t, "mean", layer) / windows[t] for t in at]
        axis.bar(range(len(at)), height, 0.6, below, color=colour, label=f"skipped in {layer} (A)", zorder=1)
        below = [a + b for a, b in zip(below, height, strict=True)]
    for fill, (colour, marker, label) in LINES.items():
        axis.plot(range(len(at)), [value(rows, "f1", t, fill) for t in at], color=colour, marker=marker, label=label)
    (stock,) = (row for row in rows if row["method"] == "stock" and row["layer"] == "total")
    axis.axhline(float(stock["f1"]), color="0.2", linewidth=0.8, linestyle="--", label="F1, torch")
    axis.plot(range(len(at)), [PAPER.get(t, float("nan")) for t in at], color="0.45", marker="D", linestyle=":",
              label="accuracy, paper (B)")  # fmt: skip
    axis.set_xticks(range(len(at)), [f"{t:g}" for t in at])
    axis.set(xlabel="threshold t2", ylim=(0, 1.03))
    axis.spines[["top", "right"]].set_visible(False)


def markdown(rows: Rows) -> list[str]:
    """Return the table "paper against here" of the classifier."""
    head = "| network | fill | t2 | accuracy, paper | accuracy, here | F1, here | skipped windows | skipped MACs |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for network in dict.fromkeys(row["network"] for row in rows):
        part = [row for row in rows if row["network"] == network]
        (stock,) = (row for row in part if row["method"] == "stock" and row["layer"] == "total")
        name = TITLES.get(network, network)
        lines.append(f"| {name} | torch | | | {float(stock['accuracy']):.4f} | {float(stock['f1']):.4f} | 0 % | 0 % |")
        for fill in LINES:
            for t in thresholds(part):
                accuracy, score, windows, macs = (
                    value(part, column, t, fill) for column in ("accuracy", "f1", "window_share", "mac_share")
                )
                paper = f"{PAPER[t]:.4f}" if fill == "max_normal" and t in PAPER else ""
                approach = "A" if fill == "mean" else "B"
                found = f"{accuracy:.4f} | {score:.4f} | {windows:.1%} | {macs:.1%}"
                lines.append(f"| {name} | {approach} | {t:g} | {paper} | {found} |")
    return lines
