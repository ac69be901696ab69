"""What does a new tensor cost? Nothing while a benchmark runs: memory that was freed is kept for the next one."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)


def keep_freed() -> str:
    """Keep the process's freed memory, where the C library can, and return what was done, for a manifest.

    Otherwise large outputs are sometimes handed back to the system and fetched again page by page, which costs as much
    as a small convolution, and hits stock and our kernels by chance: their times have two modes.
    """
    if platform.libc_ver()[0] != "glibc":
        return "the C library's own"
    libc = ctypes.CDLL(None)
    done = libc.mallopt(_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    return "freed memory is kept for the next tensor (mallopt)" if done else "the C library's own; mallopt refused"
