"""Compiled kernels of the NaN operators. Is there a library for this machine?

The libraries have a plain C interface; the files beside this one say what their functions take.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch

VERSION = 3
_CAPABILITY = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}


def names() -> tuple[str, ...]:
    """Return the instruction sets of this processor that have kernels, the widest first."""
    return _CAPABILITY.get(torch.backends.cpu.get_cpu_capability(), ())


@cache
def load(name: str) -> ctypes.CDLL | None:
    """Return the library of an instruction set, or None where it was not built."""
    for path in sorted(Path(__file__).parent.glob(f"_{name}.*")):
        library = ctypes.CDLL(str(path))
        if library.nan_version() == VERSION:
            return library
    return None


@cache
def library() -> ctypes.CDLL | None:
    """Return the library for this processor, or None where there is none."""
    return next((found for name in names() if (found := load(name)) is not None), None)


def required() -> ctypes.CDLL:
    """Return the library; only asked for where there is one."""
    found = library()
    if found is None:
        raise RuntimeError(f"Expected compiled kernels: {absence()}.")
    return found


def absence() -> str:
    """Return why there is no library, as half a sentence."""
    if not names():
        return "this processor has neither AVX2 nor AVX-512"
    return "no kernels of this version were built (is there a C++ compiler? install nanops again)"
