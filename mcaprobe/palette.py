"""Which colour has a number of bits, and which a class?  Told apart with any colour vision (tested by simulation)."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_rgb
from numpy.typing import ArrayLike, NDArray

from mcaprobe.statistics import Class

# Bits are blues, pale for few and dark for many, so that red is left for noise and every class is off that line.
BITS = ListedColormap(colormaps["Blues"](np.linspace(0.16, 1.0, 256)), name="bits")
COLOURS: dict[Class, str] = {
    Class.NOISE: "#d7191c",
    Class.ZERO: "#cdc5b2",
    Class.EXACT: "#ffd23f",
    Class.SHIFTED: "#8c564b",
    Class.NAN: "#000000",
    Class.INF: "#f58518",
    Class.UNDEFINED: "#7f7f7f",
}
WORDS: dict[Class, str] = {
    Class.NOISE: "noise: 0 significant bits",
    Class.ZERO: "zero in every run",
    Class.EXACT: "exact: never changes",
    Class.SHIFTED: "shifted: constant, not the IEEE value",
    Class.NAN: "NaN in a run",
    Class.INF: "infinite in a run",
    Class.UNDEFINED: "undefined: no finite sample",
}


def colour_image(bits: ArrayLike, majority: ArrayLike, most_bits: float) -> NDArray[np.float64]:
    """Return the picture of a map, (H, W, 3) in [0, 1].

    Args:
        bits: (H, W) significant bits, shown from 0 to `most_bits` where the majority is NUMBER.
        majority: (H, W) codes of Class.
        most_bits: Bits of the darkest blue: 24 for float32, 53 for float64.
    """
    values = np.nan_to_num(np.asarray(bits, dtype=np.float64), nan=0.0)
    kinds = np.asarray(majority)
    if values.shape != kinds.shape or values.ndim != 2:
        raise ValueError(f"Expected bits and majority of one shape (H, W), got {values.shape} and {kinds.shape}.")
    image = np.asarray(BITS(np.clip(values / most_bits, 0.0, 1.0)))[..., :3].copy()
    for kind, colour in COLOURS.items():
        image[kinds == kind] = to_rgb(colour)
    return image
