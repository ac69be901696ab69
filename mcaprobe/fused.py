"""What do the compiled sweeps over the samples and moments of a float32 layer take and return?

Nothing here knows what the numbers mean; kernels/statistics.h says it, moments.py and sweep.py use it. Every call
releases the interpreter lock. `available()` is asked first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_double, c_int32, c_int64, c_void_p

import numpy as np
import torch
from torch import Tensor

from mcaprobe import kernels


class State(Structure):
    """Addresses of the tensors of some moments, 0 for one that is not there."""

    _fields_ = [(name, c_void_p) for name in
                ("offset", "m2", "minimum", "maximum", "reference", "zeros", "nans", "infs")]  # fmt: skip


class _Samples(Structure):
    _fields_ = [("values", POINTER(c_void_p)), ("sizes", POINTER(c_int64)), ("blocks", c_int64)]


class _Layer(Structure):
    _fields_ = [("elements", c_int64), ("samples", _Samples), ("moments", State)]


class Question(Structure):
    """What is asked of the scores, field by field as in kernels/statistics.h."""

    _fields_ = [("samples", c_int64), ("combination", c_int64), ("cost", c_double), ("lowest", c_int64),
                ("per_bit", c_int64), ("bins", c_int64), ("cells", c_int64), ("regions", c_int64)]  # fmt: skip


class Scores(Structure):
    """A question and where the answers go, field by field as in kernels/statistics.cpp."""

    _fields_ = [("question", Question), ("cell", c_void_p), ("positions", c_int64), ("bits", c_void_p),
                ("codes", c_void_p), ("table", c_void_p), ("kinds", c_void_p), ("sums", c_void_p)]  # fmt: skip


def available(*tensors: Tensor) -> bool:
    """Return whether there is a library and all tensors are of float32, on the processor, not empty."""
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" and t.numel() > 0 for t in tensors)
    return plain and kernels.library() is not None


def _library() -> ctypes.CDLL:
    library = kernels.library()
    if library is None:
        raise RuntimeError(f"Expected compiled kernels: {kernels.absence()}.")
    return library


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor with its elements in the order of memory."""
    return tensor.detach().resolve_neg().contiguous()


def state(tensors: Sequence[Tensor | None]) -> State:
    """Return the addresses of offset, m2, minimum, maximum, reference, zeros, nans and infs, all contiguous."""
    return State(*(None if t is None else t.data_ptr() for t in tensors))


def update(moments: State, sample: Tensor, n: int) -> bool:
    """Add the n-th sample to moments of finite samples; False, and nothing done, where it is not finite."""
    sample = plain(sample)
    return bool(_library().mca_update(byref(moments), c_void_p(sample.data_ptr()), c_int64(sample.numel()), c_int64(n)))


def merge(a: State, b: State, elements: int, count_a: int, count_b: int) -> None:
    """Merge moments of finite samples into `a`."""
    _library().mca_merge(byref(a), byref(b), c_int64(elements), c_double(count_a), c_double(count_b))


def sweep(
    elements: int, blocks: Sequence[Sequence[Tensor]], moments: State, scores: Scores | None, threads: int
) -> bool:
    """Reduce the blocks of samples to moments, and these to scores; return whether all samples are finite.

    Args:
        blocks: Samples, each plain(); none: `moments` are given.
        moments: The reference alone, or also where the moments are written. `nans` and `infs` are needed where moments
            are written and a sample is not finite: call again with them.
    """
    samples = [sample for block in blocks for sample in block]
    values = (c_void_p * len(samples))(*(sample.data_ptr() for sample in samples))
    sizes = (c_int64 * len(blocks))(*(len(block) for block in blocks))
    layer = _Layer(elements, _Samples(values, sizes, len(blocks)), moments)
    return bool(_library().mca_sweep(byref(layer), None if scores is None else byref(scores), c_int32(threads)))


def chunk() -> int:
    """Return of how many elements the sums are."""
    return int(_library().mca_sweep_chunk())


def address(array: np.ndarray | None) -> int | None:
    """Return where the elements of a contiguous array are."""
    return None if array is None else int(array.ctypes.data)


def select(
    bits: np.ndarray, codes: np.ndarray, cell: np.ndarray | None, masks: Sequence[int],
    ranges: Sequence[tuple[float, float]], rooms: Sequence[int],
) -> list[np.ndarray]:  # fmt: skip
    """Return the bits of the numbers within `ranges[r]` (the end excluded).

    Args:
        masks: Region r has the cells with all bits of masks[r].
        rooms: How many there are at most.
    """
    found = [np.empty(room) for room in rooms]
    low, high = (np.array([ends[i] for ends in ranges]) for i in (0, 1))
    wanted, most = np.array(masks, dtype=np.uint8), np.array(rooms, dtype=np.int64)
    counts = np.zeros(len(found), dtype=np.int64)
    out = (c_void_p * len(found))(*(address(values) for values in found))
    _library().mca_select(
        c_void_p(address(bits)), c_void_p(address(codes)), c_int64(bits.size), c_void_p(address(cell)),
        c_int64(1 if cell is None else cell.size), c_int64(len(found)), c_void_p(address(wanted)),
        c_void_p(address(low)), c_void_p(address(high)), c_void_p(address(most)), out, c_void_p(address(counts)),
    )  # fmt: skip
    return [values[:count] for values, count in zip(found, counts, strict=True)]


def channel_map(bits: np.ndarray, codes: np.ndarray, channels: int, threads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return median, majority and shares of the channels (fewer than 2^16) at each position."""
    positions = bits.size // channels
    median, majority = torch.empty(positions), torch.empty(positions, dtype=torch.uint8)
    shares = torch.empty(8, positions)
    _library().mca_channel_map(
        c_void_p(address(bits)), c_void_p(address(codes)), c_int64(channels), c_int64(positions),
        c_void_p(median.data_ptr()), c_void_p(majority.data_ptr()), c_void_p(shares.data_ptr()), c_int32(threads),
    )  # fmt: skip
    return median, majority, shares
