"""Where are layers reduced to moments while a perturbed model runs? In threads that the perturbation does not reach."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Reducer:
    """Threads in which layers are reduced, out of reach of the perturbation, which holds for the model's thread only.

    Every torch kernel runs on one thread there, so that no sum depends on their number; blocks go side by side. The
    compiled sweeps (sweep.py) take `threads` instead: chunks of elements go side by side.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._name = f"reduce-{id(self)}"
        self._outer, self._inner = (
            ThreadPoolExecutor(count, self._name, initializer=torch.set_num_threads, initargs=(1,))
            for count in (1, threads)
        )

    def __enter__(self) -> "Reducer":
        return self

    def __exit__(self, *error: object) -> None:
        self._outer.shutdown()
        self._inner.shutdown()
        # An interrupt within the start of a thread leaves one that its executor does not know and that still writes.
        for thread in threading.enumerate():
            if thread.name.startswith(self._name):
                while thread.ident is None:  # on its way
                    time.sleep(0.001)
                thread.join()

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` unperturbed and wait for it; its exception is raised here."""
        self._outer.submit(_without_grad(function)).result()

    def each(self, function: Callable[[range], T], blocks: list[range]) -> Iterator[T]:
        """Yield the moments of each block in order, at most one a thread ahead of what is taken."""
        ahead = [self._inner.submit(_without_grad(function), block) for block in blocks[: self.threads]]
        for i in range(len(blocks)):
            moments = ahead.pop(0).result()
            if i + self.threads < len(blocks):
                ahead.append(self._inner.submit(_without_grad(function), blocks[i + self.threads]))
            yield moments


def _without_grad(function: Callable[..., T]) -> Callable[..., T]:
    def run(*args: Any) -> T:
        with torch.no_grad():
            return function(*args)

    return run
