"""Which colour has a number of bits, and which a class?  Told apart with any colour vision (tested by simulation)."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from numpy.typing import ArrayLike, NDArray

from mcaprobe.statistics import Class

# Bits go from pale to dark, through cyan and blue to indigo (lightness falls all the way): red is left for noise, and
# every class lies off that line.
BITS = LinearSegmentedColormap.from_list(
    "bits", ["#e3f0fb", "#b9e3ee", "#72cdd6", "#2fa8c8", "#2870bb", "#2b3596", "#1c0a52"]
)
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
