"""Figures 15 and 16 of the paper: labels over the anatomy, and in bright red each voxel where a method has another."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from analyses.experiments.overlay import Overlay
from analyses.methods import STOCK
from analyses.structures import CLASSES

Array = NDArray[np.float64]
RED = "#ff0000"
# By structure, none of them reddish; structures that touch differ in lightness as well.
COLOURS = (
    "#000000", "#dfe6ee", "#4f81bd", "#1b1f5e", "#f5dd8a", "#c98a1b", "#00a878", "#8fd3ff", "#c583e0", "#5a2d91",
    "#7fffd4", "#0b5d5d", "#9aa56b", "#f7f32b", "#2fd6d6", "#7a5230",
)  # fmt: skip
OPACITY = 0.45
GREYS = 32  # levels of the anatomy: the file is a third smaller than with 256
AXIS = {"sagittal": 0, "axial": 1, "coronal": 2}  # of a volume (L, I, A): the one that a cut is across
LETTER = {"sagittal": "x", "axial": "z", "coronal": "y"}


@dataclass(frozen=True)
class Cut:
    """A plane through the head, or a part of it.

    Attributes:
        at: Millimetres along the axis across the plane, as the image's affine has them.
        box: Millimetres of two opposite corners (x, y, z) of what is shown.
    """

    name: str
    plane: str
    at: float
    box: tuple[tuple[float, float, float], tuple[float, float, float]]


HEAD = ((-73, -107, -73), (73, 74, 82))
# Chosen by the anatomy, not by where labels differ.
CUTS = (
    Cut("coronal", "coronal", -22, HEAD),
    Cut("axial", "axial", 6, HEAD),
    Cut("sagittal", "sagittal", 20, HEAD),
    Cut("cerebellum", "coronal", -64, ((-60, -107, -68), (60, 74, 22))),
)


def draw(overlay: Overlay, footer: str, cuts: Sequence[Cut] = CUTS) -> Figure:
    """Return a row of cuts for torch's labels and one for each method's, in which all that differs is red."""
    stock = overlay.labels[STOCK]
    brain = int((stock > 0).sum())
    ratios = [_width_over_height(cut) for cut in cuts]
    height = 0.4 + 11 / sum(ratios)
    figure = plt.figure(figsize=(11, 1.1 + len(overlay.labels) * height), layout="constrained")
    rows = figure.subfigures(len(overlay.labels), 1, squeeze=False)[:, 0]
    for part, (name, labels) in zip(rows, overlay.labels.items(), strict=True):
        differing = int((labels != stock).sum())
        count = f"{name}: {differing:,} of {brain:,} voxels differ ({100 * differing / brain:.2g} %)"
        part.suptitle("torch" if name == STOCK else count, fontsize=10, fontweight="bold", x=0.005, ha="left")
        axes = part.subplots(1, len(cuts), width_ratios=ratios, squeeze=False)[0]
        for axis, cut in zip(axes, cuts, strict=True):
            _panel(axis, cut, overlay, labels, count_shown=name != STOCK)
    _legend(figure, sorted(int(k) for k in stock.unique()))
    figure.supxlabel(footer, fontsize=7, color="0.35", x=0.005, ha="left")
    return figure


def picture(cut: Cut, overlay: Overlay, labels: Tensor) -> tuple[Array, int]:
    """Return a cut in colours (H, W, 3) in [0, 1], superior or anterior up, and how many of its voxels differ."""
    grey, found, stock = (section(cut, x, overlay.affine) for x in (overlay.image, labels, overlay.labels[STOCK]))
    grey_share = np.rint(GREYS * (grey / max(1, int(overlay.image.max())))) / GREYS
    rgb = np.repeat(grey_share[..., None], 3, axis=-1)
    palette = np.array([to_rgb(colour) for colour in COLOURS])
    named = found > 0
    rgb[named] = (1 - OPACITY) * rgb[named] + OPACITY * palette[found[named]]
    rgb[found != stock] = to_rgb(RED)
    return rgb, int((found != stock).sum())


def section(cut: Cut, volume: Tensor, affine: Array) -> NDArray[np.uint8]:
    """Return the cut's part of a volume (L, I, A), (H, W): superior or anterior up, the head's right side left."""
    inverse = np.linalg.inv(affine)
    ends = np.array([inverse @ [*corner, 1] for corner in cut.box])[:, :3]
    low, high = np.rint(ends.min(0)).astype(int), np.rint(ends.max(0)).astype(int)
    where = [slice(a, b + 1) for a, b in zip(low, high, strict=True)]
    axis = AXIS[cut.plane]
    point = np.array([*cut.box[0], 1.0])
    point["xyz".index(LETTER[cut.plane])] = cut.at
    at = round(float((inverse @ point)[axis]))
    parts = [slice(at, at + 1) if k == axis else part for k, part in enumerate(where)]
    plane: NDArray[np.uint8] = volume[tuple(parts)].numpy().squeeze(axis)
    return {"coronal": plane.T, "axial": plane.T[::-1], "sagittal": plane}[cut.plane]


def _panel(axis: Axes, cut: Cut, overlay: Overlay, labels: Tensor, count_shown: bool) -> None:
    rgb, differing = picture(cut, overlay, labels)
    axis.imshow(rgb, interpolation="nearest")
    place = f"{cut.name}, {LETTER[cut.plane]} = {cut.at:g} mm".replace("-", "−")
    axis.set_title(f"{place}: {differing:,} differ" if count_shown else place, fontsize=8, loc="left")
    axis.set_axis_off()
    if cut.plane != "sagittal":
        axis.text(0.02, 0.02, "R", color="white", fontsize=8, transform=axis.transAxes)


def _legend(figure: Figure, classes: Sequence[int]) -> None:
    handles = [Patch(color=COLOURS[k], label=CLASSES[k]) for k in classes if k]
    handles.append(Patch(color=RED, label="differs from torch"))
    figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False, fontsize=8)


def _width_over_height(cut: Cut) -> float:
    x, y, z = (abs(a - b) + 1 for a, b in zip(*cut.box, strict=True))
    return {"coronal": x / z, "axial": x / y, "sagittal": y / z}[cut.plane]
