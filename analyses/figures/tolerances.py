"""Figure 9b of the paper: F1 and what is skipped, over the tolerance, for classifiers with aggressive NaNs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.figures.thresholds import thresholds, value

Rows = Sequence[Mapping[str, str]]
# Okabe and Ito 2008, by falling threshold; each has a marker, its size and a shift (in bar widths) of its own as well.
STYLES = (("#0072b2", "o", 9, -0.5), ("#d55e00", "s", 5, 0.5))
BAR = 0.36
TITLES = {"separable": "small Xception, digits", "SqueezeNet": "SqueezeNet, photographs"}
SCORES = ("accuracy", "f1", "window_share", "mac_share")


def draw(rows: Rows, footer: str) -> Figure:
    """Return two panels for each network: F1 above, the share of skipped windows below, over the tolerance.

    Args:
        rows: Of the experiment `xception`, float32, approach A.
        footer: Threads, machine and the like; n stands above each panel.
    """
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, axes = plt.subplots(2, len(networks), figsize=(4.6 * len(networks), 5.4), sharex=True, sharey="row",
                                squeeze=False, layout="constrained")  # fmt: skip
    for (above, below), network in zip(axes.T, networks, strict=True):
        part = [row for row in rows if row["network"] == network]
        _scores(above, part)
        _skipped(below, part)
        above.set_title(f"{TITLES.get(network, network)} (n = {int(part[0]['images']):,})", fontsize=10, loc="left")
    axes[0, 0].set(ylabel="F1", ylim=(-0.03, 1.05))
    axes[1, 0].set(ylabel="skipped windows, % of all")
    axes[1, 0].margins(y=0.12)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False,
                  fontsize=8)  # fmt: skip
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def tolerances(rows: Rows) -> list[str]:
    """Return the tolerances of the rows, rising, as they are written there."""
    return sorted({row["tolerance"] for row in rows if row.get("tolerance")}, key=float)


def markdown(rows: Rows) -> list[str]:
    """Return the table of the sweep."""
    head = "| network | n | tolerance ε | t2 | accuracy | F1 | skipped windows | skipped MACs |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for network in dict.fromkeys(row["network"] for row in rows):
        part = [row for row in rows if row["network"] == network]
        about, torch = f"| {TITLES.get(network, network)} | {int(part[0]['images']):,} |", stock(part)
        lines.append(f"{about} torch | | {float(torch['accuracy']):.4f} | {float(torch['f1']):.4f} | 0 % | 0 % |")
        for tolerance in tolerances(part):
            for t in thresholds(part):
                accuracy, f1, windows, macs = (value(at(part, tolerance), c, t, "mean") for c in SCORES)
                shares = f"{100 * windows:.2f} % | {100 * macs:.2f} %"
                lines.append(f"{about} {_power(tolerance)} | {t:g} | {accuracy:.4f} | {f1:.4f} | {shares} |")
    return lines


def stock(rows: Rows) -> Mapping[str, str]:
    """Return the row of torch's own network."""
    (found,) = (row for row in rows if row["method"] == "stock" and row["layer"] == "total")
    return found


def at(rows: Rows, tolerance: str) -> Rows:
    """Return the rows of a tolerance."""
    return [row for row in rows if row.get("tolerance") == tolerance]


def _scores(axis: Axes, rows: Rows) -> None:
    axis.axhline(float(stock(rows)["f1"]), color="0.2", linewidth=0.8, linestyle="--", label="torch")
    for t, (colour, marker, size, _) in zip(thresholds(rows), STYLES, strict=False):
        f1 = [value(at(rows, tolerance), "f1", t, "mean") for tolerance in tolerances(rows)]
        label = f"aggressive NaNs, t2 = {t:g}"
        axis.plot(range(len(f1)), f1, color=colour, marker=marker, markersize=size, label=label)
    axis.spines[["top", "right"]].set_visible(False)


def _skipped(axis: Axes, rows: Rows) -> None:
    swept = tolerances(rows)
    for t, (colour, _, _, shift) in zip(thresholds(rows), STYLES, strict=False):
        shares = [100 * value(at(rows, tolerance), "window_share", t, "mean") for tolerance in swept]
        bars = axis.bar([k + shift * BAR for k in range(len(swept))], shares, BAR, color=colour)
        texts = [f"{share:.1f}" if share >= 1 else f"{share:.2f}" for share in shares]
        axis.bar_label(bars, texts, fontsize=7, padding=1)
    axis.set_xticks(range(len(swept)), [f"$10^{{{_exponent(tolerance)}}}$" for tolerance in swept])
    axis.set_xlabel("tolerance ε, absolute")
    axis.spines[["top", "right"]].set_visible(False)


def _exponent(tolerance: str) -> int:
    return int(f"{float(tolerance):e}".split("e")[1])


def _power(tolerance: str) -> str:
    return f"{float(tolerance):.0e}".replace("e-0", "e-")
