"""Where do NaNs and unstable elements meet? Over the anatomy: both, only NaN, only unstable; by layer and pooling."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from analyses.figures.validation import METHODS

ANATOMY = "anatomy"
# Okabe and Ito 2008.
COLOURS = {
    "NaN and unstable (true positive)": "#009e73",
    "NaN, not unstable (false positive)": "#d55e00",
    "unstable, not NaN (false negative)": "#56b4e9",
}
FAINT = 0.75  # of the anatomy's brightness


def draw_fates(maps: Mapping[str, Tensor], footer: str) -> Figure:
    """Return a row for each pooling and a column for each unpooling output.

    A pixel's colour is mixed by the shares of its channels; what is left of them shows the anatomy. The second axis of
    the image runs upwards, the patient's right is at the right.

    Args:
        maps: `method/layer` -> (3, h, w) shares (agreement.fate), and `anatomy` (H, W).
    """
    names = [name.split("/", 1) for name in maps if name != ANATOMY]
    present = {method for method, _ in names}
    methods = [method for method in METHODS if method in present]
    # A file of tensors has no order: the coarsest layer comes first, as it does in the network.
    layers = sorted({layer for _, layer in names}, key=lambda layer: maps[f"{methods[0]}/{layer}"][0].numel())
    figure, axes = plt.subplots(
        len(methods), len(layers), figsize=(2.5 * len(layers), 2.65 * len(methods) + 0.7), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, method in zip(axes, methods, strict=True):
        for axis, layer in zip(line, layers, strict=True):
            fate = maps[f"{method}/{layer}"].numpy()
            axis.imshow(mixed(fate, maps[ANATOMY].numpy()).swapaxes(0, 1), origin="lower", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{layer}, {fate.shape[1]} x {fate.shape[2]}", fontsize=8, loc="left")
        line[0].set_ylabel(f"{method} NaNs", fontsize=9)
    handles = [Patch(color=colour, label=label) for label, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.supxlabel(footer, fontsize=6.5, color="0.35", x=0.01, ha="left")
    return figure


def mixed(fate: NDArray[np.float32], anatomy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the picture of shares (3, h, w) over an anatomy (H, W), (H, W, 3) in [0, 1], at the anatomy's size."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(anatomy.shape, fate.shape[1:], strict=True))
    shares = fate[:, rows][:, :, columns].astype(np.float64)
    grey = FAINT * anatomy / max(float(anatomy.max()), 1e-9)
    rest = np.clip(1 - shares.sum(0), 0, 1)
    picture = (rest * grey)[..., None] * np.ones(3)
    for share, colour in zip(shares, COLOURS.values(), strict=True):
        picture += share[..., None] * np.array(to_rgb(colour))
    return np.clip(picture, 0, 1)
