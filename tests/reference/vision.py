"""How far apart are two colours for a person with each kind of colour vision?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
VISIONS: dict[str, list[list[float]]] = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]
    ],
}  # fmt: skip


def lab(colour: tuple[float, float, float], vision: str) -> NDArray[np.float64]:
    """Return CIE L*a*b* (D65) of an sRGB colour as seen with `vision`."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    r, g, b = (min(1.0, max(0.0, sum(w * c for w, c in zip(row, linear, strict=True)))) for row in VISIONS[vision])
    xyz = (
        (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047,
        0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
        (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883,
    )
    f = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(a: tuple[float, float, float], b: tuple[float, float, float], vision: str) -> float:
    """Return the distance in L*a*b*; about 2.3 is just noticeable side by side."""
    return float(np.linalg.norm(lab(a, vision) - lab(b, vision)))
