"""Where do the NaNs lie, and where are the digits lost? The figures of `validate`, from its rows."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.figures.blocks import mark_blocks
from analyses.figures.validation_tables import BACKGROUND, BRAIN, decoder, mean_of
from analyses.methods import STOCK
from analyses.validation.summary import ALL, GROUPS

Rows = Sequence[Mapping[str, str]]
# Okabe and Ito 2008, and a marker each.
METHODS = {
    "conservative": ("#0072b2", "o"), "aggressive": ("#d55e00", "s"), "hybrid": ("#009e73", "^"),
}  # fmt: skip


def draw(windows: Rows, layers: Rows, places: Rows, footer: str) -> Figure:
    """Return four panels: agreement of windows and of unpooling outputs, the NaNs' fate, and the distance to the edge.

    Args:
        windows, layers, places: Summaries over the subjects; places of one criterion.
        footer: n and the like.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10.5, 8), layout="constrained")
    main = layers[0]["criterion"]
    unpools = [row for row in layers if "unpool" in row["layer"] and row["layer"] not in GROUPS]
    unpools = [row for row in unpools if row["criterion"] == main]
    _dice(axes[0, 0], [row for row in windows if row["layer"] != ALL], "windows: ambiguous against changed index")
    _dice(axes[0, 1], unpools, f"unpooling outputs: NaN against unstable ({main})")
    _fates(axes[1, 0], [row for row in layers if row["criterion"] == main])
    _distances(axes[1, 1], [row for row in places if row["layer"] == unpools[-1]["layer"]])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def _dice(axis: Axes, rows: Rows, title: str) -> None:
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    for k, (method, (colour, marker)) in enumerate(METHODS.items()):
        own = {row["layer"]: row for row in rows if row["method"] == method}
        at = [i + (k - 1) * 0.2 for i, name in enumerate(layers) if own.get(name, {}).get("dice")]
        known = [own[name] for name in layers if own.get(name, {}).get("dice")]
        dice = [float(row["dice"]) for row in known]
        below = [d - float(row["dice_low"] or d) for d, row in zip(dice, known, strict=True)]
        above = [float(row["dice_high"] or d) - d for d, row in zip(dice, known, strict=True)]
        axis.errorbar(at, dice, [below, above], fmt=marker, color=colour, ms=5, capsize=2, label=f"{method} NaNs")
        chance = [float(row["chance_dice"]) for row in known]
        label = "by chance" if k == 2 else ""
        axis.hlines(chance, [x - 0.09 for x in at], [x + 0.09 for x in at], color="0.5", lw=1.5, label=label)
    axis.set_xticks(range(len(layers)), layers, fontsize=8, rotation=20, ha="right")
    axis.set(ylim=(-0.03, 1.03), ylabel="Dice: mean, 95 % bootstrap")
    axis.set_title(title, fontsize=9, loc="left")


def _fates(axis: Axes, rows: Rows) -> None:
    """Draw what the NaNs stand on, as bars, for each group of layers and method."""
    parts = {
        "nan_on_unstable": ("#009e73", "unstable elements"),
        "nan_on_undefined": ("0.75", "elements without digits"),
        "nan_on_stable": ("#d55e00", "stable elements"),
    }
    bars = [
        (group, method, row)
        for group in GROUPS for method in METHODS for row in rows
        if (row["layer"], row["method"]) == (group, method) and row["nan_on_unstable"]
    ]  # fmt: skip
    left = [0.0] * len(bars)
    for column, (colour, label) in parts.items():
        width = [float(row[column]) for _, _, row in bars]
        axis.barh(range(len(bars)), width, 0.7, left, color=colour, label=label)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axis.set_yticks(range(len(bars)), [f"{group}, {method}" for group, method, _ in bars], fontsize=7)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="share of the NaNs")
    axis.set_title("What the NaNs stand on", fontsize=9, loc="left")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=3, frameon=False, fontsize=7)


def _distances(axis: Axes, rows: Rows) -> None:
    """Draw the shares of NaN and of unstable elements over the distance to the edge of the brain's mask."""
    bands = list(dict.fromkeys((row["low"], row["high"]) for row in rows))
    for method, (colour, marker) in METHODS.items():
        own = {(row["low"], row["high"]): row for row in rows if row["method"] == method}
        share = [int(own[band]["predicted"]) / int(own[band]["elements"]) for band in bands]
        axis.plot(range(len(bands)), share, marker + "-", color=colour, ms=4, lw=1)
        if method == "conservative":
            truth = [int(own[band]["true"]) / int(own[band]["elements"]) for band in bands]
            axis.plot(range(len(bands)), truth, "x--", color="black", ms=6, lw=1, label="unstable elements")
    names = [f"{low} to {high}".replace("-inf to", "below").replace(" to inf", " on") for low, high in bands]
    axis.set_xticks(range(len(bands)), names, fontsize=7, rotation=30, ha="right")
    axis.set(ylim=(-0.03, 1.03), ylabel="share of the elements")
    axis.set_xlabel("voxels from the brain's edge, negative outside")
    axis.set_title(f"{rows[0]['layer']}: NaN (colours) and unstable (black)", fontsize=9, loc="left")


def draw_digits(rows: Rows, footer: str) -> Figure:
    """Return panels of bits and noise by layer from the first unpooling on, in brain and background: stock and NaNs.

    Args:
        rows: Of the table `digits`; means over the subjects.
        footer: n and the like.
    """
    present = {row["method"] for row in rows}
    shown = [method for method in DIGIT_LINES if method in present]
    behind = decoder(rows)
    stock = [row for row in rows if row["method"] == STOCK and row["operator"] in ("Conv2d", "MaxUnpool2d")]
    layers = [layer for layer in dict.fromkeys(row["layer"] for row in stock) if layer in behind]
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.4), sharex=True, layout="constrained")
    for column, region in zip(axes.T, (BRAIN, BACKGROUND), strict=True):
        for axis, measure in zip(column, ("bits_mean", "share_noise"), strict=True):
            for method in shown:
                colour, style = DIGIT_LINES[method]
                part = [row for row in rows if (row["method"], row["region"]) == (method, region)]
                found = [mean_of([row for row in part if row["layer"] == layer], measure) for layer in layers]
                at = [i for i, value in enumerate(found) if value is not None]
                axis.plot(at, [found[i] for i in at], style, color=colour, lw=1.2, ms=3, label=method)
        column[0].set_title(region, fontsize=9, loc="left")
        mark_blocks(column[1], layers)
    axes[0, 0].set_ylabel("significant bits, mean over elements with bits", fontsize=8)
    axes[1, 0].set_ylabel("share of class noise", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


DIGIT_LINES = {
    STOCK: ("black", "-"), "conservative": ("#0072b2", "-"), "conservative, calibrated": ("#0072b2", "--"),
    "conservative, 256 ulps": ("#0072b2", ":"), "aggressive": ("#d55e00", "-"),
    "aggressive, calibrated": ("#d55e00", "--"), "aggressive, 256 ulps": ("#d55e00", ":"), "hybrid": ("#009e73", "-"),
    "oracle": ("#cc79a7", "-"), "oracle, moved": ("#e69f00", "--"), "oracle, random": ("0.6", "--"),
}  # fmt: skip
