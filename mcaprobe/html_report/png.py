"""How does a small picture travel inside of a page? As a PNG, the same bytes every time, in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def grey_png(values: NDArray[np.uint8]) -> str:
    """Return a grey picture (H, W) as PNG in base64."""
    return _png(_image(values, "L"))


def indexed_png(values: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> str:
    """Return a picture (H, W) of indices into at most 256 colours as PNG in base64."""
    if not len(colours) or len(colours) > 256 or int(values.max(initial=0)) >= len(colours):
        raise ValueError(f"Expected indices into 1 to 256 colours, got {int(values.max(initial=0))} of {len(colours)}.")
    image = _image(values, "P")
    image.putpalette([part for colour in colours for part in colour])
    return _png(image)


def _image(values: NDArray[np.uint8], mode: str) -> Image.Image:
    if values.ndim != 2 or values.dtype != np.uint8 or 0 in values.shape:
        raise ValueError(f"Expected a picture of uint8 (H, W), got {values.dtype} of shape {values.shape}.")
    height, width = values.shape
    return Image.frombytes(mode, (width, height), values.tobytes())


def _png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
