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
        executed: Multiply-accumulates that were made for each sample by the kernel that ran; a window that is computed
            counts in full, even if taps outside the image or of NaN only are left out.
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


@dataclass(frozen=True, slots=True)
class Replaced:
    """NaNs that a converted model replaced, by its final policy, at its output or before an operator inside.

    Args:
        layer: Path of the layer that called the operator, "" for the model itself.
        operator: What they would have reached, such as "linear"; "output" for the output.
        nans: How many, for each sample, int64 on the CPU.
    """

    layer: str
    operator: str
    nans: Tensor


_listeners: ContextVar[tuple[list[Call], ...]] = ContextVar("listeners", default=())
_replacements: ContextVar[tuple[list[Replaced], ...]] = ContextVar("replacements", default=())


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


def note_replaced(replaced: Replaced) -> None:
    """Tell every listener of NaNs that were replaced."""
    for found in _replacements.get():
        found.append(replaced)


@contextmanager
def listen_to_replacements() -> Iterator[list[Replaced]]:
    """Collect the NaNs that were replaced inside the block, in order."""
    found: list[Replaced] = []
    token = _replacements.set((*_replacements.get(), found))
    try:
        yield found
    finally:
        _replacements.reset(token)
