"""Where in a network do the digits go?  One picture in the manner of Figure 1 of the paper on NaN poolings.

The maps of a model's layers on one slice, from the first layer to the last, each at its own resolution and all of one
size, on one scale of bits, with the anatomy before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from mcaprobe.page import (
    MARGIN,
    NAME_POINTS,
    NOTE,
    NOTE_POINTS,
    TITLE_POINTS,
    WIDTH,
    Layout,
    captions_for,
    layout_for,
    wrapped,
)
from mcaprobe.palette import BITS, COLOURS, WORDS, colour_image
from mcaprobe.selection import select_layers
from mcaprobe.statistics import Class

__all__ = ["LayerPicture", "heatmap", "select_layers"]

# Letters at the left and the right of a slice that is drawn with its second axis upwards.
SIDES = {"axial": ("L", "R"), "coronal": ("L", "R"), "sagittal": ("P", "A")}


@dataclass(frozen=True, slots=True)
class LayerPicture:
    """The map of one layer.

    Attributes:
        name: The recorder's name.
        bits: (H, W) median significant bits of the numeric channels.
        majority: (H, W) code of the class that more than half of the channels have (`statistics.channel_map`).
        shape: Shape of the layer, (1, C, H, W).
    """

    name: str
    bits: ArrayLike
    majority: ArrayLike
    shape: tuple[int, ...]


def heatmap(
    layers: Sequence[LayerPicture],
    anatomy: ArrayLike | None,
    title: str,
    footer: str,
    order: Sequence[str] | None = None,
    *,
    plane: str = "axial",
    voxel_size: tuple[float, float] = (1.0, 1.0),
    most_bits: int = 24,
    limit: int = 20,
) -> Figure:
    """Draw the maps of the layers on one slice.

    With an anatomy the slice is drawn in the neurological convention: the second axis of (H, W) upwards, and the
    patient's right at the right, as the letters say. Without one, maps are drawn as arrays, first row on top.

    Args:
        layers: Maps in execution order; of more than `limit`, `select_layers` chooses.
        anatomy: (H, W) intensities of the slice, or None.
        title: One line above the maps.
        footer: n, mode, estimator, seed, threads, machine; wrapped at the page width.
        order: Names of the layers to draw, in this order; None: as given.
        plane: axial, coronal or sagittal: which letters the sides get.
        voxel_size: Of the input along H and W, in mm: the shape of the panels.
        most_bits: End of the scale: 24 for float32, 53 for float64.
        limit: The most maps in one picture.
    Returns:
        A figure 7 inches wide, of 200 dots an inch unless `figure.savefig(path, dpi=...)` says another number.
    Raises:
        ValueError: nothing to draw, a name in `order` that is not there, or a map that is not (H, W).
    """
    chosen = _ordered(layers, order) if order is not None else select_layers(layers, limit)
    if not chosen:
        raise ValueError("Expected one layer or more to draw, got none.")
    if plane not in SIDES:
        raise ValueError(f"Expected the plane axial, coronal or sagittal, got {plane!r}.")
    upwards = anatomy is not None
    ratio = _ratio(np.shape(anatomy) if anatomy is not None else np.shape(chosen[0].bits), voxel_size, upwards)
    panels = len(chosen) + upwards
    head, notes = wrapped(title, TITLE_POINTS, "bold"), wrapped(footer, NOTE_POINTS)
    kinds = _present(chosen)
    layout = layout_for(panels, ratio, len(head), 0.42 + 0.1 * max(2, -(-len(kinds) // 2)) + NOTE * len(notes))
    figure = Figure(figsize=(WIDTH, layout.height), dpi=200, facecolor="white")
    if anatomy is not None:
        _draw_anatomy(layout.panel(figure, 0), np.asarray(anatomy, dtype=np.float64), plane)
    names = captions_for([layer.name for layer in chosen], layout.side[0])
    for number, (layer, name) in enumerate(zip(chosen, names, strict=True)):
        axes = layout.panel(figure, number + upwards)
        image = _seen(colour_image(layer.bits, layer.majority, most_bits), upwards)
        axes.imshow(image, interpolation="nearest", aspect="auto")
        _caption(axes, name, _dimensions(layer.shape))
    _scale(figure, layout, most_bits)
    _legend(figure, layout, kinds)
    left, top, low = MARGIN / WIDTH, 1 - 0.08 / layout.height, 0.05 / layout.height
    figure.text(left, top, "\n".join(head), fontsize=TITLE_POINTS, weight="bold", va="top", linespacing=1.2)
    figure.text(left, low, "\n".join(notes), fontsize=NOTE_POINTS, color="0.35", va="bottom", linespacing=1.25)
    return figure


def _ordered(layers: Sequence[LayerPicture], order: Sequence[str]) -> list[LayerPicture]:
    by_name = {layer.name: layer for layer in layers}
    missing = [name for name in order if name not in by_name]
    if missing:
        raise ValueError(f"Expected names of {len(layers)} layers in order, got {missing[0]!r}, which is none of them.")
    return [by_name[name] for name in order]


def _ratio(shape: tuple[int, ...], voxel_size: tuple[float, float], upwards: bool) -> float:
    """Return height over width of a panel, between 1/2 and 2."""
    extents = [size * edge for size, edge in zip(shape, voxel_size, strict=True)]
    return float(np.clip(extents[1] / extents[0] if upwards else extents[0] / extents[1], 0.5, 2.0))


def _seen(image: NDArray[np.float64], upwards: bool) -> NDArray[np.float64]:
    """Return the array as it is drawn: (H, W) turned so that H points right and W up, or as it is."""
    return np.rot90(image) if upwards else image


def _caption(axes: Axes, name: str, shape: str) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(linewidth=0.4, color="0.5")
    axes.annotate(
        name,
        (0, 0),
        (0, -2),
        "axes fraction",
        "offset points",
        fontsize=NAME_POINTS,
        va="top",
        annotation_clip=False,
    )
    axes.annotate(
        shape,
        (0, 0),
        (0, -9.5),
        "axes fraction",
        "offset points",
        fontsize=5.2,
        color="0.35",
        va="top",
        annotation_clip=False,
    )


def _draw_anatomy(axes: Axes, anatomy: NDArray[np.float64], plane: str) -> None:
    axes.imshow(_seen(anatomy, True), cmap="gray", interpolation="nearest", aspect="auto")
    _caption(axes, "input slice", f"{plane}, {anatomy.shape[0]} × {anatomy.shape[1]}")
    for x, side, letter in zip((0.03, 0.97), ("left", "right"), SIDES[plane], strict=True):
        axes.text(
            x,
            0.5,
            letter,
            transform=axes.transAxes,
            ha=side,
            va="center",
            color="white",
            fontsize=7,
            weight="bold",
        )


def _dimensions(shape: tuple[int, ...]) -> str:
    sizes = shape[1:] if len(shape) == 4 else shape
    channels = f"{sizes[0]} channel{'s' if sizes[0] != 1 else ''}, " if len(shape) == 4 else ""
    return channels + " × ".join(str(n) for n in sizes[1 if len(shape) == 4 else 0 :])


def _scale(figure: Figure, layout: Layout, most_bits: int) -> None:
    """Draw the colour bar of the bits below the panels at the left."""
    axes = layout.axes(figure, MARGIN + 0.05, layout.bottom - 0.33, 2.2, 0.1)
    bar = figure.colorbar(ScalarMappable(Normalize(0, most_bits), BITS), cax=axes, orientation="horizontal")
    bar.set_ticks([most_bits * k / 6 for k in range(7)] if most_bits % 6 == 0 else list(range(0, most_bits + 1, 10)))
    bar.ax.tick_params(labelsize=6, length=2, width=0.4, pad=1.5)
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    axes.set_title("significant bits (median over channels)", fontsize=6.5, loc="left", pad=2.5)


def _present(layers: Sequence[LayerPicture]) -> list[Class]:
    """Return the classes that occur and have a colour of their own."""
    present = {int(kind) for layer in layers for kind in np.unique(np.asarray(layer.majority))}
    return [kind for kind in COLOURS if kind in present]


def _legend(figure: Figure, layout: Layout, kinds: Sequence[Class]) -> None:
    """Draw the colours of the classes that occur, at the right of the scale."""
    if not kinds:
        return
    high = layout.bottom - 0.1
    axes = layout.axes(figure, 2.6, high - 0.4, WIDTH - 2.6 - MARGIN, 0.4)
    axes.axis("off")
    patches = [Patch(facecolor=COLOURS[kind], edgecolor="0.4", linewidth=0.4, label=WORDS[kind]) for kind in kinds]
    axes.legend(
        handles=patches,
        ncols=2,
        title="class of more than half of the channels",
        title_fontsize=6.5,
        alignment="left",
        fontsize=6.2,
        loc="upper left",
        borderaxespad=0,
        frameon=False,
        handlelength=1.2,
        handleheight=0.9,
        columnspacing=1.2,
        labelspacing=0.25,
    )
