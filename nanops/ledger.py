"""What did the operators skip? They report each call here, from the masks they worked with; `count_skipped` listens."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator on a batch; the tensors have one entry a sample, int64 on the CPU.

    Args:
        operator: Its public name, such as "nan_conv2d".
        windows: Windows of a sample, over all groups.
        skipped: Those whose output is NaN because too much of the window is.
        uniform: Those filled with the known output of a window of background.
        macs: Multiply-accumulates that a dense operator makes for one window; their mean where windows differ, as those
            of a transposed convolution do.
        executed: Multiply-accumulates that were made for each sample by the kernel that ran.
        route: That kernel: "stock", "compiled" or "torch".
        spared: Multiply-accumulates of the skipped windows; None for skipped times macs.
    """

    operator: str
    windows: int
    skipped: Tensor
    uniform: Tensor
    macs: float
    executed: Tensor
    route: str
    spared: Tensor | None = None


_listeners: ContextVar[tuple[list[Call], ...]] = ContextVar("listeners", default=())


def listening() -> bool:
    """Return whether anybody wants to know."""
    return bool(_listeners.get())


def note(call: Call) -> None:
    """Tell every listener of a call."""
    for calls in _listeners.get():
        calls.append(call)


@contextmanager
def listen() -> Iterator[list[Call]]:
    """Collect the calls made inside the block, in order."""
    calls: list[Call] = []
    token = _listeners.set((*_listeners.get(), calls))
    try:
        yield calls
    finally:
        _listeners.reset(token)
