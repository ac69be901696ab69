"""How is a function that a layer calls replaced, without an edit of the model?

By one table for modules and functional calls alike: every module of torch calls a function of torch in the end, and
while a converted model runs, a `TorchFunctionMode` sees each of them. To exchange the modules themselves too would be
a second way to the same operators, which does not see `F.max_pool2d` in a forward, a subclass, or a parametrized layer.
Each module of the copy becomes a subclass of its own class, whose forward says which layer is running.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from nanops.conversion import leaves
from nanops.conversion.deferred import Waiting, settled
from nanops.conversion.knowledge import CARRIED, HEADS, LOCAL, METADATA, PRODUCTS, SOFT, ZEROED
from nanops.conversion.masks import Masks
from nanops.conversion.options import Options
from nanops.conversion.oracle import Oracle
from nanops.conversion.outputs import finish
from nanops.conversion.place import Place, holds_nan, mark, may_hold_nan, pool_of, tensors
from nanops.conversion.replacements import REPLACEMENTS, note_dense
from nanops.conversion.writes import STATE, keeps_inputs
from nanops.errors import ConversionError, InputError

_LARGER = ("maximum", "max")


class Conversion:
    """What the modules of one converted model have in common: the original, the final policy and an oracle's masks."""

    def __init__(self, original: nn.Module, final: str, background: int, masks: Masks | None = None) -> None:
        self.original, self.final, self.background, self.masks = original, final, background, masks


class Site:
    """What a converted module knows of itself: its path, "" for the model, its options, None if it stays, its class."""

    def __init__(self, conversion: Conversion, path: str, options: Options | None, kind: type[nn.Module]) -> None:
        self.conversion, self.path, self.options, self.kind = conversion, path, options, kind
        self.leaf = leaves.is_leaf(kind, options)

    @property
    def layer(self) -> str:
        """Its name in a sentence."""
        return f"layer {self.path!r}" if self.path else "the model's own forward"


class Converted:
    """Mixed into the class of every module of a converted model."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module itself returns, with the functions of torch replaced."""
        own: Callable[..., Any] = super().forward  # type: ignore[misc]
        site: Site | None = getattr(self, "_nanops", None)
        if site is None:  # a slice of a Sequential, say, made during a forward
            return own(*args, **kwargs)
        mode = running(site.conversion)
        if mode is not None:
            return mode.run(self, site, own, args, kwargs)
        mode = Replacing(site.conversion, site.path)
        with mode:
            try:
                output = mode.run(self, site, own, args, kwargs)
            finally:
                mode.waiting.settle()  # also what an exception carries away
        if site.path:
            return settled(output)
        if mode.oracle is not None:
            mode.oracle.expect_found()
        return finish(_final(site), output)

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Register a hook as torch does; the functions that it calls are torch's own."""
        return super().register_forward_hook(Plain(hook), **options)  # type: ignore[misc]

    def register_forward_pre_hook(self, hook: Callable[..., Any], **options: Any) -> Any:
        """Register a hook as torch does; the functions that it calls are torch's own."""
        return super().register_forward_pre_hook(Plain(hook), **options)  # type: ignore[misc]


def _final(site: Site) -> Place:
    whole = site.conversion
    return Place(site.layer, site.path, site.options, whole.final, whole.background, finish, "output")


def become(module: nn.Module) -> None:
    """Make a module one of a subclass of its class, whose forward says which layer is running.

    Raises:
        ConversionError: Python does not allow it for this class.
    """
    kind: Any = type(module)
    try:
        module.__class__ = _subclass(kind)
    except TypeError as error:
        raise ConversionError(f"Cannot convert a {kind.__name__}: its class cannot be extended ({error}).") from error


@cache
def _subclass(kind: Any) -> Any:
    return type(kind.__name__, (Converted, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


class Plain:
    """A hook that looks at NaN without being converted: what it calls is not replaced, and nothing is refused."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the hook."""
        modes = [m for m in _get_current_function_mode_stack() if isinstance(m, Replacing) and not m.paused]
        for mode in modes:
            mode.waiting.settle()
            mode.paused = True
        try:
            return self.hook(*settled(args), **settled(kwargs))
        finally:
            for mode in modes:
                mode.paused = False


class Replacing(TorchFunctionMode):
    """Replace the functions of torch that are called while a converted model runs, or a layer of it, in this thread."""

    def __init__(self, conversion: Conversion, layer: str) -> None:
        super().__init__()
        self.conversion = conversion
        self.oracle = None if conversion.masks is None else Oracle(conversion.masks, layer)
        self.site: Site | None = None
        self.paused = False
        self.waiting = Waiting()

    def run(
        self, module: Any, site: Site, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the forward of a module."""
        if site.leaf and len(args) == 1 and not kwargs and not self.paused:
            try:
                y = leaves.run(self.waiting, module, site.kind, site.options, forward, args[0])
            except InputError as error:
                raise InputError(f"In {site.layer}: {error}") from None
            if y is not None:
                return y
        before, self.site = self.site, site
        try:
            y = forward(*args, **kwargs)
        finally:
            self.site = before
        if self.oracle is not None and site.path in self.oracle.masks.around and not self.paused:
            y = self.oracle.returned(site.path, y)
        return y

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call what stands for a function."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in STATE:
            self.waiting.settle()
        if self.paused or self.site is None or name in METADATA or _ours(func):
            return func(*args, **kwargs)
        if name in _LARGER and len(args) == 2 and not kwargs:
            larger = self.waiting.larger(*args)
            if larger is not None:
                return larger
        if not keeps_inputs(name, args, kwargs):
            self.waiting.settle()
        args, kwargs = settled(args), settled(kwargs)
        name = name.strip("_")
        tied = any(pool_of(t) is not None for t in tensors((*args, *kwargs.values())))
        learned = name in PRODUCTS and torch.is_grad_enabled()
        if name in LOCAL and not tied and name not in REPLACEMENTS and not learned:
            return func(*args, **kwargs)
        conversion, site = self.conversion, self.site
        oracle = None if self.oracle is None else self.oracle.mark
        place = Place(site.layer, site.path, site.options, conversion.final, conversion.background, func, name, oracle)
        return _dispatch(place, args, kwargs, tied)


def running(conversion: Conversion) -> Replacing | None:
    """Return the mode of a conversion that is active in this thread."""
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, Replacing) and mode.conversion is conversion:
            return mode
    return None


def _ours(func: Callable[..., Any]) -> bool:
    """Return whether a function is an operator of ours, which a model may call by itself."""
    return (getattr(func, "__module__", None) or "").startswith("nanops.")


def _called_by_ours() -> bool:
    """Return whether the call is made inside an operator of ours, which a model calls by itself and which knows NaN."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not Replacing.run.__code__:
        home = frame.f_globals.get("__name__", "")
        if not home.startswith(("torch.", "nanops.conversion.")):
            return home.startswith("nanops.functional.")
        frame = frame.f_back
    return False


# A compiled graph breaks here, and the operators run as they do without: they choose their kernel by the values.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _dispatch(at: Place, args: tuple[Any, ...], kwargs: dict[str, Any], tied: bool) -> Any:
    if _called_by_ours():
        return at.function(*args, **kwargs)
    if tied and not (at.name.startswith("max_unpool") and at.options is not None):
        return _carry(at, args, kwargs)
    try:
        if at.name in REPLACEMENTS:
            if at.options is not None:
                return REPLACEMENTS[at.name](at, *args, **kwargs)
            if at.name in LOCAL:  # an unpool copies, which spreads no NaN
                return at.function(*args, **kwargs)
            return note_dense(at, _stock(at, args, kwargs), args, kwargs)
        if at.name in ZEROED:
            return _stock(at, args, kwargs)
        if at.name in PRODUCTS:
            return _apart(at, args, kwargs)
        if at.name in HEADS:
            return _head(at, args, kwargs)
    except InputError as error:
        raise InputError(f"In {at.layer}: {error}") from None
    # Not known: it may run as long as no NaN arrives.
    if any(holds_nan(t) for t in tensors((*args, *kwargs.values()))):
        raise at.refuse(f"a NaN reached {at.name}, which is not known to keep a NaN in its place")
    return at.function(*args, **kwargs)


def _apart(at: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an elementwise product whose gradients no NaN reaches: what is NaN is computed apart."""
    given = [t for t in tensors((*args, *kwargs.values())) if t.is_floating_point()]
    if not any(t.requires_grad for t in given) or not any(holds_nan(t) for t in given):
        return at.function(*args, **kwargs)

    def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

        return at.function(*map(changed, args), **{k: changed(v) for k, v in kwargs.items() if k != "out"})

    with torch.no_grad():
        plain = each(lambda t: t.detach().clone())  # clones: the function may work in place
    y = each(lambda t: torch.where(t.isnan(), 1.0, t))
    hidden = torch.zeros_like(plain, dtype=torch.bool)
    for t in given:
        if holds_nan(t):
            hidden |= t.detach().isnan().broadcast_to(plain.shape)
    y = torch.where(hidden, plain, y)
    in_place = getattr(at.function, "__name__", "").endswith("_") and not at.function.__name__.endswith("__")
    return args[0].copy_(y) if in_place else y


def _carry(at: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return ties that are only handed on.

    Raises:
        ConversionError: anything else is done with them.
    """
    pool = next(p for t in tensors((*args, *kwargs.values())) if (p := pool_of(t)) is not None)
    if at.name in CARRIED and pool_of(args[0]) is not None:
        found = at.function(*args, **kwargs)
        if found.dtype == args[0].dtype:
            return mark(found, pool)
    if at.options is None and at.name.startswith("max_unpool"):
        raise at.refuse(f"it stays a stock unpool, but its indices come from the converted pool {pool.layer}; "
                        "select both or neither")  # fmt: skip
    raise at.refuse(f"{at.name} is called with the indices of {pool.layer}, which are ties in a converted model and "
                    "good for unpooling only")  # fmt: skip


def _stock(at: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return torch's own result for an input with 0 for NaN."""
    if args:
        return at.function(at.zeroed(args[0]), *args[1:], **kwargs)
    name = "input" if "input" in kwargs else "self"
    return at.function(**{**kwargs, name: at.zeroed(kwargs[name])})


def _head(at: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return a choice between classes after the final policy.

    Raises:
        ConversionError: the policy keeps NaN where it would win, or knows no background along that axis.
    """
    first, rest = args[0] if args else kwargs["input"], {k: v for k, v in kwargs.items() if args or k != "input"}
    other = args[1] if len(args) > 1 else rest.get("other")
    if isinstance(other, torch.Tensor) or not may_hold_nan(first):  # torch.max(a, b) is elementwise
        return at.function(*args, **kwargs)
    if at.final == "keep" and at.name in SOFT:
        return at.function(*args, **kwargs)
    if at.final != "background":
        return at.function(at.zeroed(first), *args[1:], **rest)
    axis = rest.get("dim", other if isinstance(other, int) and at.name != "topk" else None)
    if axis is None or axis % first.dim() != 1:
        raise at.refuse(f"{at.name} along axis {axis} meets a NaN; final='background' knows classes along axis 1")
    return at.function(at.replaced(first, "background", at.name), *args[1:], **rest)
