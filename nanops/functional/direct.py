"""The short way to a NaN convolution: eager, float32, no gaps, and nothing asked for but the result.

What a call needs besides its tensors is prepared once. After a large layer has emptied the caches every line of Python
counts: the long way takes .3 ms there, a tenth of a small layer's convolution.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nanops import kernels, ledger
from nanops.functional import transforms
from nanops.functional.geometry import Geometry
from nanops.functional.layout import memory_format
from nanops.kernels.convolution import Direct
from nanops.rule import Rule
from nanops.windows import Size

_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
Read = Callable[[Size, Size | str, Size, int, tuple[int, ...]], Geometry]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size | str, dilation: Size, groups: int,
    rule: Rule, read: Read,
) -> Tensor | None:  # fmt: skip
    """Return the result, or None where the call takes the long way: it is another one, or its arguments are wrong.

    Args:
        read: Makes a geometry of the arguments; raises InputError.
    """
    if torch.compiler.is_compiling() or not _plain(x, weight, bias):
        return None
    last = _FORMATS.get(x.ndim - 2, torch.contiguous_format)
    if x.is_contiguous():
        last = memory_format(x, weight)
    elif x.ndim not in (4, 5) or not x.is_contiguous(memory_format=last):
        return None
    try:
        settings = (stride, padding, dilation, groups)
        prepared = _prepared(tuple(x.shape), tuple(weight.shape), weight.stride(), settings, rule, read)
    except TypeError:  # a list has no hash
        return None
    if prepared is None:
        return None
    geometry, job = prepared
    y = job(x, weight, bias, last)
    return geometry.stock(x, weight, bias) if y is None else y


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether these are ordinary tensors of one another's size, of which no gradients are asked."""
    kinds = (Tensor, torch.nn.Parameter)
    if bias is not None:
        if type(bias) not in kinds or bias.dtype is not torch.float32 or not bias.is_cpu:
            return False
        if bias.shape != weight.shape[:1] or not bias.is_contiguous() or bias.is_neg():
            return False
    if type(x) is not Tensor or type(weight) not in kinds or transforms.active():
        return False
    if x.dtype is not torch.float32 or weight.dtype is not torch.float32 or not x.is_cpu or not weight.is_cpu:
        return False
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return False
    if x.is_neg() or weight.is_neg() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return kernels.library() is not None and not ledger.listening()


@lru_cache(maxsize=1024, typed=True)
def _prepared(
    shape: tuple[int, ...], weight: tuple[int, ...], strides: tuple[int, ...], settings: tuple[Any, ...], rule: Rule,
    read: Read,
) -> tuple[Geometry, Direct] | None:  # fmt: skip
    stride, padding, dilation, groups = settings
    if len(weight) != len(shape) or 0 in weight or 0 in shape or rule.uniform or rule.fill != "mean":
        return None
    if not isinstance(groups, int) or groups < 1 or shape[1] != weight[1] * groups or weight[0] % groups:
        return None
    if groups > 1 and weight[1] == 1:
        return None
    geometry = read(stride, padding, dilation, groups, weight[2:])
    job = Direct.of(geometry.windows(shape[2:], weight[2:]), shape, weight, strides, groups, rule)
    return None if job is None else (geometry, job)
