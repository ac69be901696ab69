"""NaN convolution: windows that are mostly NaN are skipped, the NaNs of others filled (paper, sections 4 and 5)."""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Generator, Tensor
from torch.overrides import handle_torch_function, has_torch_function

from nanops.errors import InputError
from nanops.functional import direct
from nanops.functional.convolution_op import call, tracing
from nanops.functional.geometry import Geometry
from nanops.rule import Rule
from nanops.windows import Size, expand, same_padding

F = TypeVar("F", bound=Callable[..., Any])


def _nan_conv(
    dims: int, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size | str, dilation: Size,
    groups: int, rule: Rule, generator: Generator | None, return_skipped: bool,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    if not return_skipped and x.ndim == dims + 2:
        y = direct.convolve(x, weight, bias, stride, padding, dilation, groups, rule, geometry_of)
        if y is not None:
            return y
    batched = check(dims, x, weight, bias, groups)
    geometry = geometry_of(stride, padding, dilation, groups, tuple(int(k) for k in weight.shape[2:]))
    return finish(x, weight, bias, geometry, rule, generator, batched, return_skipped)


def geometry_of(stride: Size, padding: Size | str, dilation: Size, groups: int, kernel: tuple[int, ...]) -> Geometry:
    """Return the geometry of a convolution's arguments; InputError where they make no sense."""
    dims = len(kernel)
    d, s = expand(dilation, dims, "dilation"), expand(stride, dims, "stride")
    return Geometry(s, *_padding(padding, kernel, d, s), d, groups)


def finish(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rule: Rule, generator: Generator | None,
    batched: bool, return_skipped: bool,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Return the result, and where windows were skipped if that is asked for."""
    y, skipped = call(x if batched else x[None], weight, bias, geometry, rule, key(rule, generator), return_skipped)
    if not return_skipped:
        return y if batched else y[0]
    return (y, skipped) if batched else (y[0], skipped[0])


def overridable(function: F) -> F:
    """Return a function that torch treats as its own: a symbolic trace or a subclass of Tensor, autocast, jit.trace."""

    @wraps(function)
    def checked(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **options: Any) -> Any:
        tensors = (x, weight, bias)
        if has_torch_function(tensors):
            return handle_torch_function(checked, tensors, x, weight, bias, *args, **options)
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
            to = torch.get_autocast_dtype(kind)
            with torch.autocast(kind, enabled=False):  # the sums inside stay in float32
                cast_bias = None if bias is None else bias.to(to)
                return checked(x.to(to), weight.to(to), cast_bias, *args, **options)
        if not tracing():
            return function(x, weight, bias, *args, **options)
        with warnings.catch_warnings():  # shapes are checked once, while tracing
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return function(x, weight, bias, *args, **options)

    return cast(F, checked)


def check(dims: int, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool = False) -> bool:
    """Return whether x has a batch axis.

    Raises:
        InputError: shapes, dtypes or devices that do not fit together.
    """
    if x.ndim not in (dims + 1, dims + 2):
        sizes = "L" if dims == 1 else "H, W" if dims == 2 else "D, H, W"
        raise InputError(f"Expected x of shape (N, C, {sizes}) or (C, {sizes}), got {tuple(x.shape)}.")
    if weight.ndim != dims + 2 or 0 in weight.shape:
        raise InputError(f"Expected a weight with {dims + 2} axes, none of them empty, got {tuple(weight.shape)}.")
    if not x.is_floating_point() or weight.dtype != x.dtype or (bias is not None and bias.dtype != x.dtype):
        dtypes = ", ".join(str(t.dtype) for t in (x, weight, bias) if t is not None)
        raise InputError(f"Expected x, weight and bias of one floating dtype, got {dtypes}.")
    if weight.device != x.device or (bias is not None and bias.device != x.device):
        raise InputError(f"Expected x, weight and bias on one device, got x on {x.device}, weight on {weight.device}.")
    channels, outputs = x.shape[-dims - 1], weight.shape[1] * groups if transposed else weight.shape[0]
    if not isinstance(groups, int) or groups < 1 or channels % groups or outputs % groups:
        raise InputError(f"Expected groups that divide {channels} inputs and {outputs} outputs, got {groups}.")
    expected = weight.shape[0] if transposed else weight.shape[1] * groups
    if channels != expected:
        raise InputError(f"Expected x with {expected} channels for a weight of shape {tuple(weight.shape)} and "
                         f"{groups} groups, got {channels}.")  # fmt: skip
    if bias is not None and tuple(bias.shape) != (outputs,):
        raise InputError(f"Expected a bias of shape ({outputs},), got {tuple(bias.shape)}.")
    return x.ndim == dims + 2


def key(rule: Rule, generator: Generator | None) -> Tensor | None:
    """Return the key of this call's draws, two words in int64; the only thing that is taken from the generator.

    Raises:
        InputError: draws are asked for and there is no generator; the global one is never used.
    """
    if rule.fill != "max_normal":
        return None
    if generator is None:
        raise InputError("Expected a torch.Generator for fill='max_normal', got None.")
    return torch.randint(1 << 32, (2,), generator=generator, device=generator.device)


def _padding(
    padding: Size | str, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not isinstance(padding, str):
        both = expand(padding, len(kernel), "padding", least=0)
        return both, both
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    if padding != "same":
        raise InputError(f"Expected padding to be 'same', 'valid' or integers, got {padding!r}.")
    if max(stride) > 1:
        raise InputError(f"Expected stride 1 with padding='same', got {tuple(stride)}.")
    return same_padding(kernel, dilation)


@overridable
def nan_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1, *, threshold: float = 0.5, fill: str = "mean", sigma: float = 1e-3,
    generator: Generator | None = None, count_padding: bool = True, uniform: bool = False, return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """NaN convolution of signals, (N, C, L) or (C, L); all else as `nan_conv2d`."""
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    return _nan_conv(1, x, weight, bias, stride, padding, dilation, groups, rule, generator, return_skipped)


@overridable
def nan_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1, *, threshold: float = 0.5, fill: str = "mean", sigma: float = 1e-3,
    generator: Generator | None = None, count_padding: bool = True, uniform: bool = False, return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Return a convolution that is NaN where windows are mostly NaN, and elsewhere that of the filled window.

    A window has C / groups times the kernel's size values, padding zeros among them. Where NaNs / values >= threshold
    (the paper's t2; in float64) the outputs of the group are NaN and nothing is computed. Elsewhere NaNs are replaced
    by the mean of the window's valid values (`fill="mean"`, approach A) or by draws from a normal distribution around
    their maximum (`fill="max_normal"`, approach B). Without any NaN in x the result is torch's own, bit for bit; else
    clean windows may come from another kernel, and equal it within the rounding of their sums.

    Args:
        x: (N, C, H, W) or (C, H, W), any floating dtype, device and memory format; never changed.
        weight: (O, C / groups, *kernel).
        bias: (O,).
        stride, padding, dilation, groups: As in torch; padding may be "same" or "valid".
        threshold: In (0, 1].
        sigma: Standard deviation of approach B.
        generator: Gives approach B the key of its draws, which are functions of it, the window and the element: the
            same for every sample of the batch. The global random state is neither read nor changed. Taking the key
            ends a compiled graph; a traced one keeps the key of its trace.
        count_padding: Whether padding zeros are valid values; if not, only the image counts, and a window without any
            of it is computed as padding.
        uniform: Whether windows that equal the sample's background (the most frequent of pixels near its corners) at
            every position get the known output of such a window; changes no value beyond rounding. Off where no two of
            these pixels are equal.
        return_skipped: Whether to return also where windows were skipped, boolean, (N, groups, H', W').

    Returns:
        (N, O, H', W'), x's dtype, in the memory format that torch would give. Gradients are those of the filled
        windows, once: none passes through a skipped window or reaches a NaN; what replaces NaNs depends on the valid
        values, and a maximum that several of them share divides its gradient between them.

    Raises:
        InputError: shapes, dtypes, devices or options that do not fit together.
    """
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    return _nan_conv(2, x, weight, bias, stride, padding, dilation, groups, rule, generator, return_skipped)


@overridable
def nan_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1, *, threshold: float = 0.5, fill: str = "mean", sigma: float = 1e-3,
    generator: Generator | None = None, count_padding: bool = True, uniform: bool = False, return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """NaN convolution of volumes, (N, C, D, H, W) or (C, D, H, W); all else as `nan_conv2d`."""
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    return _nan_conv(3, x, weight, bias, stride, padding, dilation, groups, rule, generator, return_skipped)
