"""Curves over the layers of the demo's network: how many bits are left, how much is noise, in brain and background."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.figures.blocks import mark_blocks

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito 2008: told apart by the colour-blind
KINDS = ("Conv2d", "MaxUnpool2d", "MaxPool2d")
PANELS = (
    ("brain", "bits_mean", "mean significant bits, brain", (0, 24)),
    ("background", "bits_mean", "mean significant bits, background", (0, 24)),
    ("brain", "share_noise", "share of noise, brain", (-0.02, 1)),
    ("background", "share_noise", "share of noise, background", (-0.02, 1)),
)


def draw(rows: Sequence[Mapping[str, Any]], footer: str) -> Figure:
    """Return a figure of four panels over convolutions, poolings and unpoolings, one curve for each input."""
    names = list(dict.fromkeys(r["input"] for r in rows))
    layers = _layers(rows)
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.2), sharex=True, layout="constrained")
    for axis, (region, column, label, limits) in zip(axes.flat, PANELS, strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            found = {r["layer"]: r[column] for r in rows if r["input"] == name and r["region"] == region}
            values = [found.get(layer) for layer in layers]
            numbers = [float("nan") if v in (None, "") else float(v) for v in values]
            axis.plot(range(len(layers)), numbers, marker="o", markersize=3, linewidth=1.2, color=colour, label=name)
        axis.set(ylabel=label, ylim=limits)
        mark_blocks(axis, layers)
        _mark_unpoolings(axis, layers)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("convolutions, poolings and unpoolings, from encoder to decoder")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.01, ha="left")
    return figure


def _layers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ordered = sorted({(int(r["order"]), r["layer"]) for r in rows if r["operator"] in KINDS})
    return [layer for _, layer in ordered if not layer.endswith(".indices")]


def _mark_unpoolings(axis: Axes, layers: Sequence[str]) -> None:
    for j, layer in enumerate(layers):
        if "unpool" in layer:
            axis.axvline(j, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
