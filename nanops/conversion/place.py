"""Where in a converted model is a function called, and what is done to a NaN that it cannot deal with?"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import is_tracing

from nanops import ledger
from nanops.conversion.options import Options
from nanops.errors import ConversionError
from nanops.functional.final import finalize
from nanops.functional.presence import has_nan
from nanops.functional.transforms import watched

_POOL = "_nanops_pool"


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool that made some ties: its layer and its geometry, one entry an axis."""

    layer: str
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One call of a function, inside the forward of one layer.

    Args:
        layer: Its path in sentences: 'encoder.pool' or "the model's own forward".
        path: Its path.
        options: None where the layer stays as it is.
        final, background: The final policy.
        function: What was called.
        name: Its name without underscores.
        oracle: Puts NaN into what a pool or unpool returned, from the call and the axes of its images; None without
            masks.
    """

    layer: str
    path: str
    options: Options | None
    final: str
    background: int
    function: Callable[..., Any]
    name: str
    oracle: Callable[["Place", int, Any], Any] | None = None

    def refuse(self, why: str) -> ConversionError:
        """Return the error that names the layer."""
        return ConversionError(f"Cannot convert {self.layer}: {why}.")

    def zeroed(self, x: Any, operator: str | None = None) -> Any:
        """Return x with 0 for NaN, and report how many there were; x itself where there is none.

        Raises:
            ConversionError: there are some and the final policy keeps them.
        """
        if not may_hold_nan(x):
            return x
        operator = operator or self.name
        if self.final == "keep" and holds_nan(x):
            raise self.refuse(
                f"a NaN reached {operator}, which would mix it into other values, and final='keep' does not replace it"
            )
        return x if self.final == "keep" else self.replaced(x, "zero", operator)

    def replaced(self, x: Tensor, policy: str, operator: str) -> Tensor:
        """Return x after a policy, which is reported."""
        samples = x if x.dim() else x[None]
        with torch._C.DisableTorchFunction():  # no calls of the model
            y, count = finalize(samples, policy, background=self.background)
        ledger.note_replaced(ledger.Replaced(self.path, operator, count.cpu()))
        return y if x.dim() else y[0]


def holds_nan(x: object) -> bool:
    """Return whether x is a tensor with a NaN; while a graph is traced, whether the example has one."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.is_meta or x.numel() == 0:
        return False
    with _untraced():
        return has_nan(x)


def may_hold_nan(x: object) -> bool:
    """Return whether x is a tensor that may have a NaN: where a graph is traced, any may, since other inputs follow.

    Under a dispatch mode, too: it may carry several runs at once, of which one has a NaN and another none.
    """
    if is_tracing() or watched():
        return isinstance(x, Tensor) and x.is_floating_point()
    return holds_nan(x)


def shape_of(x: Tensor) -> tuple[int, ...]:
    """Return the shape in plain numbers, which a traced graph takes for constants."""
    with _untraced():
        return tuple(x.shape)


@contextmanager
def _untraced() -> Iterator[None]:
    inside: Any = torch._C
    state = inside._get_tracing_state()
    inside._set_tracing_state(None)
    try:
        yield
    finally:
        inside._set_tracing_state(state)


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and those in lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            for part in value:
                if isinstance(part, Tensor):
                    yield part


# The ties of a pool are a tensor like any other; that they are no indices is an attribute of it, which lives and dies
# with the tensor. A subclass of Tensor would do it too, but neither compiles nor traces everywhere.
def mark(ties: Tensor, pool: Pool) -> Tensor:
    """Return ties that say which pool they are of."""
    setattr(ties, _POOL, pool)
    return ties


def pool_of(value: object) -> Pool | None:
    """Return the pool whose ties a tensor holds, None for any other tensor."""
    return getattr(value, _POOL, None) if isinstance(value, torch.Tensor) else None
