"""How does a file of tensors come together from parts, when the whole is more than the memory may hold?"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mcaprobe.maps import COMPRESSION, nifti
from mcaprobe.storage import replacing, tensors_header

Spec = tuple[torch.dtype, tuple[int, ...]]


@contextmanager
def tensors_in_parts(
    path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Yield tensors of zeros that are a safetensors file, which appears at `path` as it is filled when the block ends.

    The tensors are pages of the file, which the system writes when memory is short; they are gone behind the block.
    """
    # Widest elements first: then each tensor begins where its type can be read.
    order = sorted(specs, key=lambda name: -specs[name][0].itemsize)
    header, starts = tensors_header({name: specs[name] for name in order}, metadata)
    with replacing(path) as temporary:
        size = len(header) + sum(dtype.itemsize * prod(shape) for dtype, shape in specs.values())
        with temporary.open("wb") as file:
            file.write(header)
            file.truncate(size)
        yield {name: _mapped(temporary, len(header) + starts[name], *specs[name]) for name in specs}


def _mapped(path: Path, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = dtype.itemsize * prod(shape)
    if not count:
        return torch.zeros(shape, dtype=dtype)
    pages = np.memmap(path, dtype=np.uint8, mode="r+", offset=start, shape=(count,))
    return torch.from_numpy(pages).view(dtype).reshape(shape)


def save_in_slabs(
    path: Path, volumes: Sequence[NDArray[np.float32]], affine: ArrayLike, header: str, *, space: int, top: float
) -> None:
    """Write three-dimensional volumes as `maps.save_volumes` does, the same content, a slab at a time in memory.

    Args:
        volumes: Each (X, Y, Z); may be pages of a file.
    """
    shape = (*volumes[0].shape, len(volumes))
    image = nifti(np.broadcast_to(np.float32(0), shape), affine, header, space=space, top=top)
    image.header["magic"] = b"n+1"
    image.header.set_data_offset(352)
    image.header.set_slope_inter(1, 0)
    with replacing(path) as temporary, temporary.open("wb") as raw:
        file: Any = gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=raw, mtime=0)
        with file:
            _write(file, image.header, volumes)


def _write(file: BinaryIO, header: Any, volumes: Sequence[NDArray[np.float32]]) -> None:
    file.write(header.binaryblock)
    file.write(bytes(352 - len(header.binaryblock)))
    for volume in volumes:
        for k in range(volume.shape[2]):
            file.write(np.asarray(volume[:, :, k], dtype=np.float32).tobytes(order="F"))
