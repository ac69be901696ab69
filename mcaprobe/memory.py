"""How much memory is in use, and how much do the activations of one forward take at most?"""

import ctypes
import os
import platform
import resource
import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mcaprobe.kinds import kind_of, run_parts


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the storages that operators inside the block make and that are alive.

    Fused operators run by their parts, as in a perturbed block: attention holds its whole matrix of scores there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.largest = 0
        self._known: set[int] = set()
        self._decomposing: list[Any] = []

    def _gone(self, key: int, size: int) -> None:
        self.live -= size
        self._known.discard(key)

    def __torch_dispatch__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kind_of(func, args, kwargs, self._decomposing) == "decomposed":
            self._decomposing.append(func)
            try:
                with self:
                    return run_parts(func, args, kwargs)
            finally:
                self._decomposing.pop()
        result = func(*args, **kwargs)
        before = {t.untyped_storage().data_ptr() for t in tree_leaves([args, kwargs]) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take(tensor, before)
        return result

    def _take(self, tensor: Tensor, before: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not size or key in before or key in self._known:
            return  # a view, a result in place, or storage already counted
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        self.largest = max(self.largest, tensor.numel())
        weakref.finalize(storage, self._gone, key, size)


def give_back() -> None:
    """Hand memory that was freed back to the system, where the C library can be asked to (glibc's malloc_trim).

    After a campaign it keeps gigabytes that nobody uses: the next one in this process would be refused for them.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def base_memory(device: str) -> int:
    """Return the bytes in use now: the resident memory of this process, or what torch holds on the device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the peak so far is the nearest that is known
        return peak_memory(device)


def peak_memory(device: str) -> int:
    """Return the largest memory of this process so far in bytes (on CUDA: of torch on the device)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # a process that a larger one started inherits its ru_maxrss; Linux's VmHWM starts anew
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def default_memory(device: str) -> int:
    """Return what is in use now and half of the memory that is free."""
    if torch.device(device).type == "cuda":
        return base_memory(device) + torch.cuda.mem_get_info(device)[0] // 2
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":", 1) for line in file)
        free = int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return base_memory(device) + free // 2
