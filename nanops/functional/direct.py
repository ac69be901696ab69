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
from nanops.functional.convolution_op import captured, learns
from nanops.functional.geometry import Geometry
from nanops.functional.layout import channels_last, memory_format
from nanops.kernels.convolution import Direct
from nanops.rule import Rule
from nanops.windows import Size

_KINDS = (Tensor, torch.nn.Parameter)
Read = Callable[[Size, Size | str, Size, int, tuple[int, ...]], Geometry]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size | str, dilation: Size, groups: int,
    rule: Rule, read: Read,
) -> Tensor | None:  # fmt: skip
    """Return the result, or None where the call takes the long way: it is another one, or its arguments are wrong.

    Args:
        read: Makes a geometry of the arguments; raises InputError.
    """
    if captured(x) or transforms.watched() or not _plain(x, weight, bias):
        return None
    last = memory_format(x, weight) if x.is_contiguous() else channels_last(x.ndim)
    if last is None or not (x.is_contiguous() or x.is_contiguous(memory_format=last)):
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
    """Return whether these are ordinary tensors of which no gradients are asked, and nobody counts what is skipped."""
    if bias is not None and not (_ordinary(bias) and bias.shape == weight.shape[:1] and bias.is_contiguous()):
        return False
    if not (_ordinary(x) and _ordinary(weight)) or learns(x, weight, bias):
        return False
    return kernels.library() is not None and not ledger.listening()


def _ordinary(t: Tensor) -> bool:
    return type(t) in _KINDS and t.dtype is torch.float32 and t.is_cpu and not t.is_neg()


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
