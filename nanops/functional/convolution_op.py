"""How do graphs and gradients see a NaN convolution? As one custom operator, with the gradients of torch's operations.

Eager calls that need neither go to the kernels directly: an operator's dispatch costs as much as a small convolution.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nanops.functional import convolution_core as core
from nanops.functional import transforms
from nanops.functional.geometry import Geometry
from nanops.functional.layout import memory_format
from nanops.kernels.convolution import any_nan
from nanops.rule import Rule

_NO_KEY = (0, 0)


def call(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rule: Rule, key: Tensor | None, masked: bool
) -> tuple[Tensor, Tensor]:
    """Return the result, (N, O, *out), and if `masked` where windows were skipped, boolean (N, groups, *out).

    Args:
        x: (N, C, *size).
        key: Of the draws of approach B, two words in int64.
    """
    transforms.refuse_derivatives(x, weight, bias)
    if transforms.watched():
        # The mean of a window is then a sum in float32, as it is in the kernels.
        sums = torch.float32 if x.dtype == torch.float32 else torch.float64
        y, skipped, done = core.in_torch(x, weight, bias, geometry, rule, _words(key), sums)
        core.note(geometry, geometry.out(x, weight), skipped, done, "torch")
        return y.contiguous(memory_format=memory_format(x, weight)), skipped
    if captured(x) or (learns(x, weight, bias) and (rule.uniform or any_nan(x.detach()))):
        return convolution(x, weight, bias, key, *_settings(geometry, rule))
    return core.run(x, weight, bias, geometry, rule, _words(key), masked)


def captured(x: Tensor) -> bool:
    """Return whether a graph is being made instead of a result, or a transform or forward derivatives are at work."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta"
    return torch.compiler.is_compiling() or tracing() or not plain or transforms.active()


def tracing() -> bool:
    """Return whether torch.jit.trace is at work."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined,no-any-return]


def learns(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether gradients are asked of the result."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))


def _words(key: Tensor | None) -> tuple[int, int]:
    if key is None:
        return _NO_KEY
    first, second = key.tolist()
    return first, second


def _settings(geometry: Geometry, rule: Rule) -> tuple[Any, ...]:
    g, r = geometry, rule
    tuples = (list(g.stride), list(g.before), list(g.after), list(g.dilation))
    return (*tuples, g.groups, g.transposed, r.threshold, r.fill, r.sigma, r.count_padding, r.uniform)


def _read(
    stride: Sequence[int], before: Sequence[int], after: Sequence[int], dilation: Sequence[int], groups: int,
    transposed: bool, threshold: float, fill: str, sigma: float, count_padding: bool, uniform: bool,
) -> tuple[Geometry, Rule]:  # fmt: skip
    geometry = Geometry(tuple(stride), tuple(before), tuple(after), tuple(dilation), groups, transposed)
    return geometry, Rule(threshold, fill, sigma, count_padding, uniform)


@torch.library.custom_op("nanops::convolution", mutates_args=())
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, key: Tensor | None, stride: Sequence[int], before: Sequence[int],
    after: Sequence[int], dilation: Sequence[int], groups: int, transposed: bool, threshold: float, fill: str,
    sigma: float, count_padding: bool, uniform: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what `call` returns; see Geometry and Rule for the settings."""
    geometry, rule = _read(
        stride, before, after, dilation, groups, transposed, threshold, fill, sigma, count_padding, uniform
    )
    with torch.no_grad():
        y, skipped = core.run(x, weight, bias, geometry, rule, _words(key))
    return y.contiguous(memory_format=memory_format(x, weight)), skipped


@convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, key: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor]:
    geometry, _ = _read(*settings)
    out = geometry.out(x, weight)
    y = x.new_empty((x.shape[0], geometry.outputs(weight), *out))
    skipped = x.new_empty((x.shape[0], geometry.groups, *out), dtype=torch.bool)
    return y.contiguous(memory_format=memory_format(x, weight)), skipped


@torch.library.custom_op("nanops::convolution_backward", mutates_args=())
def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, key: Tensor | None, needed: Sequence[bool],
    stride: Sequence[int], before: Sequence[int], after: Sequence[int], dilation: Sequence[int], groups: int,
    transposed: bool, threshold: float, fill: str, sigma: float, count_padding: bool, uniform: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, weight and bias, an empty tensor for those not needed.

    The convolution is made again, in torch's operations, whose gradients these are: nothing passes through skipped
    windows, a NaN gets 0, and what replaces NaNs depends on the valid values. A maximum that several of them share
    divides its gradient between them.
    """
    geometry, rule = _read(
        stride, before, after, dilation, groups, transposed, threshold, fill, sigma, count_padding, uniform
    )
    clean = x.numel() == 0 or not any_nan(x.detach())
    given = [None if t is None else t.detach() for t in (x, weight, bias)]
    wanted = [i for i, n in enumerate(needed) if n]

    def again(*found: Tensor) -> Tensor:
        v, w, b = [found[wanted.index(i)] if i in wanted else t for i, t in enumerate(given)]
        assert v is not None and w is not None
        return geometry.stock(v, w, b) if clean else core.in_torch(v, w, b, geometry, rule, _words(key))[0]

    # Inside an operator autograd's tape is off, not so the transforms of functions.
    with torch.enable_grad():
        pull = torch.func.vjp(again, *(t for i, t in enumerate(given) if i in wanted and t is not None))[1]
        found = iter(pull(grad))
    gx, gw, gb = [next(found).contiguous() if n else x.new_empty(0) for n in needed]
    return gx, gw, gb


@convolution_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, key: Tensor | None, needed: Sequence[bool],
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    gx, gw, gb = [
        x.new_empty(t.shape if n and t is not None else (0,)) for t, n in zip((x, weight, bias), needed, strict=True)
    ]
    return gx, gw, gb


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, key, *settings = inputs
    ctx.save_for_backward(x, weight, bias, key)
    ctx.settings = settings


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, key = ctx.saved_tensors
    needed = [bool(n) for n in ctx.needs_input_grad[:3]]
    found = convolution_backward(grad, x, weight, bias, key, needed, *ctx.settings)
    return *(g if n else None for g, n in zip(found, needed, strict=True)), *(None,) * (1 + len(ctx.settings))


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("Expected a NaN convolution to be differentiated once, got a second derivative of it.")


convolution.register_autograd(_backward, setup_context=_remember)
convolution_backward.register_autograd(_refuse)
