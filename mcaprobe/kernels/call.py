"""What does every call of an arithmetic kernel state? How to round, with which random numbers, on how many threads."""

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mcaprobe import kernels

MODES = {"nearest": 0, "random": 1, "nearness": 2}
FIELDS: list[Any] = [("mode", ctypes.c_int64), ("key", ctypes.c_uint32 * 2), ("site", ctypes.c_uint32),
          ("threads", ctypes.c_uint32)]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One elementary operation.

    Args:
        mode: `nearest`, `random` or `nearness`.
        key: Two 32-bit words, of (seed, sample, call).
        site: Number of the operation within the call, below 2^16.
        threads: Change no bit.
    """

    mode: str
    key: tuple[int, int] = (0, 0)
    site: int = 0
    threads: int = 1

    def fill(self, structure: ctypes.Structure) -> None:
        """Set the fields that all structures have."""
        structure.mode, structure.site = MODES[self.mode], self.site  # type: ignore[attr-defined]
        structure.key[:] = self.key  # type: ignore[attr-defined]
        structure.threads = self.threads  # type: ignore[attr-defined]


def library() -> ctypes.CDLL:
    """Return the library; only asked for where there is one."""
    found = kernels.library()
    if found is None:
        raise RuntimeError(f"Expected compiled kernels: {kernels.absence()}.")
    return found


def expect_plain(*tensors: Tensor, double: bool = False) -> None:
    """Raise where a tensor is none that a pointer to float32 (or `double`: to either format) can stand for."""
    dtypes = (torch.float32, torch.float64) if double else (torch.float32,)
    for t in tensors:
        if t.device.type != "cpu" or t.is_neg() or t.is_conj() or t.dtype not in dtypes:
            formats = " or ".join(str(dtype)[6:] for dtype in dtypes)
            raise RuntimeError(f"Expected {formats} tensors on the processor, got {t.dtype} on {t.device}.")
