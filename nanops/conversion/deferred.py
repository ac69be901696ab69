"""Layers whose work waits for the layers behind them: activation, convolution, batch norm and maximum in one call.

A converted layer returns a tensor that is not computed yet. Where the next layer can take it up, one call does the work
of both; whatever else looks at it computes it, and gets what the layers would have made one by one (but for the
rounding of a batch norm). Before a function that may write into a tensor all that waits is computed.
"""

import copy
import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nanops.functional import around
from nanops.functional.geometry import Geometry
from nanops.kernels.convolution import Around
from nanops.rule import Rule

# What is known of a tensor before it is computed.
_KNOWN = frozenset({"dim", "size", "numel", "is_contiguous", "stride", "is_floating_point"})
_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "layout", "requires_grad"})


# Running mean, running variance, weight, bias and epsilon.
Norm = tuple[Tensor, Tensor, Tensor | None, Tensor | None, float]


class Work(Protocol):
    """What makes a tensor."""

    @property
    def shape(self) -> torch.Size:
        """Of the tensor, (N, C, H, W)."""

    def compute(self) -> Tensor:
        """Return the tensor."""


@dataclass(frozen=True, slots=True)
class Activated:
    """An activation that is linear below zero.

    Args:
        image: As `around.eligible` says.
        slope, rectified: As of `Around`.
    """

    image: Tensor
    slope: Tensor
    rectified: bool

    @property
    def shape(self) -> torch.Size:
        """Of the image."""
        return self.image.shape

    def compute(self) -> Tensor:
        """Return the image behind the activation."""
        return nn.functional.relu(self.image) if self.rectified else nn.functional.prelu(self.image, self.slope)


@dataclass(frozen=True, slots=True)
class Convolved:
    """A convolution of one group, and what stands around it.

    Args:
        image: As `around.eligible` says; what the activation or the convolution sees.
        activation: Before the convolution.
        weight, bias: Of the convolution.
        norm: Batch norm in inference.
        other: The larger one of both is taken.
    """

    image: Tensor
    activation: Activated | None
    weight: Tensor
    bias: Tensor | None
    geometry: Geometry
    rule: Rule
    norm: Norm | None = None
    other: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Of the result."""
        size = self.geometry.out(self.image, self.weight)
        return torch.Size((self.image.shape[0], self.weight.shape[0], *size))

    def compute(self) -> Tensor:
        """Return the result, by one call of the kernel or by torch's own layers."""
        before = self.activation
        slope, rectified = (None, False) if before is None else (before.slope, before.rectified)
        whole = Around(slope, rectified, self.norm, self.other)
        y = around.convolve(self.image, self.weight, self.bias, self.geometry, self.rule, whole)
        if y is not None:
            return y
        y = self.geometry.stock(self.image if before is None else before.compute(), self.weight, self.bias)
        if self.norm is not None:
            mean, var, weight, bias, eps = self.norm
            y = nn.functional.batch_norm(y, mean, var, weight, bias, False, 0.0, eps)
        return y if self.other is None else torch.maximum(y, self.other)


class Deferred(Tensor):
    """A tensor that is computed when somebody looks at it."""

    work: Work | None
    value: Tensor | None
    inference: bool

    @staticmethod
    def of(work: Work) -> "Deferred":
        """Return the tensor of some work: float32 (N, C, H, W), channels last, on the processor."""
        shape = work.shape
        _, c, h, w = shape
        strides = (h * w * c, 1, w * c, c)
        made: Any = Tensor._make_wrapper_subclass(Deferred, shape, strides, dtype=torch.float32)  # type: ignore[attr-defined]
        made.work, made.value, made.inference = work, None, torch.is_inference_mode_enabled()
        return made  # type: ignore[no-any-return]

    def settle(self) -> Tensor:
        """Return what it stands for, computed once."""
        if self.value is None:
            assert self.work is not None
            with torch._C.DisableTorchFunction(), as_when_called(self.inference):
                self.value = self.work.compute()
            self.work = None
        return self.value

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with what the tensors stand for."""
        kwargs = kwargs or {}
        if not _is_known(func) or any(type(a) is Deferred and a.value is not None for a in args):
            args, kwargs = settled(args), settled(kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operator with what the tensors stand for."""
        return func(*settled(args), **settled(kwargs or {}))


def _is_known(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        return name in _ATTRIBUTES
    return name in _KNOWN


def settled(value: Any) -> Any:
    """Return a value with what deferred tensors in it stand for: in tuples, lists and dictionaries, in one another."""
    if type(value) is Deferred:
        return value.settle()
    if isinstance(value, (tuple, list)):
        parts = [settled(part) for part in value]
        if all(map(operator.is_, parts, value)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        found = {key: settled(part) for key, part in value.items()}
        if all(map(operator.is_, found.values(), value.values())):
            return value
        made = copy.copy(value)
        made.update(found)
        return made
    return value


@contextmanager
def as_when_called(inference: bool) -> Iterator[None]:
    """Compute as where the layers were called: without gradients and autocast, in inference mode or not."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled() != inference:
            stack.enter_context(torch.inference_mode(inference))
        if torch.is_grad_enabled():
            stack.enter_context(torch.no_grad())
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        yield


class Waiting:
    """The deferred tensors of one run of a model."""

    def __init__(self) -> None:
        self._all: list[weakref.ref[Deferred]] = []

    def add(self, work: Work) -> Deferred:
        """Return the tensor of some work."""
        made = Deferred.of(work)
        self._all = [r for r in self._all if (found := r()) is not None and found.value is None]
        self._all.append(weakref.ref(made))
        return made

    def settle(self) -> None:
        """Compute all that waits: a tensor that it depends on may be written next."""
        for r in self._all:
            found = r()
            if found is not None:
                found.settle()
        self._all.clear()

    def larger(self, a: Any, b: Any) -> Deferred | None:
        """Return the elementwise maximum of a convolution that waits and an image, or None: it is to be computed."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return None
        for mine, other in ((a, b), (b, a)):
            work = mine.work if type(mine) is Deferred else None
            if not isinstance(work, Convolved) or work.other is not None:
                continue
            image = settled(other)
            if isinstance(image, Tensor) and image.shape == work.shape and around.eligible(image):
                return self.add(replace(work, other=image.detach()))
            return None
        return None
