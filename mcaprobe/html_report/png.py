"""How does a small picture travel inside of a page? As an 8-bit PNG, the same bytes every time, in base64."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GREY, INDEXED = 0, 3  # colour types of the PNG specification, section 11.2.2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def grey_png(values: NDArray[np.uint8]) -> str:
    """Return a grey picture (H, W) as PNG in base64."""
    return _png(values, GREY, b"")


def indexed_png(values: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> str:
    """Return a picture (H, W) of indices into at most 256 colours as PNG in base64."""
    if not len(colours) or len(colours) > 256 or int(values.max(initial=0)) >= len(colours):
        raise ValueError(f"Expected indices into 1 to 256 colours, got {int(values.max(initial=0))} of {len(colours)}.")
    return _png(values, INDEXED, _chunk(b"PLTE", bytes(part for colour in colours for part in colour)))


def _png(values: NDArray[np.uint8], kind: int, palette: bytes) -> str:
    if values.ndim != 2 or values.dtype != np.uint8 or 0 in values.shape:
        raise ValueError(f"Expected a picture of uint8 (H, W), got {values.dtype} of shape {values.shape}.")
    height, width = values.shape
    # Each line begins with its filter; 0 is none, which is best for indices.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), values], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = (_SIGNATURE + _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", zlib.compress(lines, 9))
            + _chunk(b"IEND", b""))  # fmt: skip
    return base64.b64encode(data).decode("ascii")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
