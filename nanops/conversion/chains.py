"""Which layers wait for those behind them, and which take up what waits?"""

from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from nanops import kernels, ledger
from nanops.conversion.deferred import Activated, Convolved, Deferred, Waiting
from nanops.conversion.options import Options
from nanops.functional import around, transforms
from nanops.functional.convolution import geometry_of
from nanops.functional.geometry import Geometry
from nanops.rule import Rule


def link(waiting: Waiting, module: Any, kind: type, options: Options | None, x: Tensor) -> Deferred | None:
    """Return what a layer makes of x without computing it, or None where it has to be computed.

    Args:
        module: The layer, and `kind` its class before it was converted.
        x: Deferred or not.
    """
    if kernels.library() is None or ledger.listening() or _watched(module) or torch.is_autocast_enabled("cpu"):
        return None
    if transforms.active():
        return None
    if kind is nn.Conv2d and options is not None and options.fill == "mean":
        return _convolve(waiting, module, options, x)
    if kind is nn.BatchNorm2d and type(x) is Deferred:
        return _normalize(waiting, module, x)
    if kind in (nn.PReLU, nn.LeakyReLU, nn.ReLU):
        return _activate(waiting, module, kind, x)
    return None


def _watched(module: Any) -> bool:
    hooks = module._forward_hooks or module._forward_pre_hooks
    return bool(hooks or torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def _convolve(waiting: Waiting, layer: nn.Conv2d, options: Options, x: Tensor) -> Deferred | None:
    weight, bias = layer.weight, layer.bias
    if layer.groups != 1 or not (around.ordinary(weight) and around.ordinary(bias)) or weight.dim() != 4:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    work = x.work if type(x) is Deferred else None
    activation = work if isinstance(work, Activated) else None
    image = activation.image if activation is not None else x.settle() if type(x) is Deferred else x
    if not around.eligible(image) or image.shape[1] != weight.shape[1] or 0 in weight.shape:
        return None
    try:
        geometry = _geometry(layer.stride, layer.padding, layer.dilation, tuple(weight.shape[2:]))
    except TypeError:  # a list has no hash
        return None
    rule = _rule(options.threshold, options.count_padding, options.uniform)
    if min(geometry.out(image, weight)) < 1:
        return None
    # Aliases: what is assigned to the layer or the image later belongs to later calls.
    own = None if bias is None else bias.detach()
    return waiting.add(Convolved(image.detach(), activation, weight.detach(), own, geometry, rule))


@lru_cache(maxsize=1024)
def _geometry(stride: Any, padding: Any, dilation: Any, kernel: tuple[int, ...]) -> Geometry:
    return geometry_of(stride, padding, dilation, 1, kernel)


@lru_cache(maxsize=1024)
def _rule(threshold: float, count_padding: bool, uniform: bool) -> Rule:
    return Rule(threshold, "mean", count_padding=count_padding, uniform=uniform)


def _normalize(waiting: Waiting, layer: nn.BatchNorm2d, x: Deferred) -> Deferred | None:
    work = x.work
    if not isinstance(work, Convolved) or work.norm is not None or work.other is not None:
        return None
    mean, var, weight, bias = layer.running_mean, layer.running_var, layer.weight, layer.bias
    if mean is None or var is None or not all(around.ordinary(v) for v in (mean, var, weight, bias)):
        return None
    if any(v is not None and v.shape != work.weight.shape[:1] for v in (mean, var, weight, bias)):
        return None
    scale, shift = (None if v is None else v.detach() for v in (weight, bias))
    return waiting.add(replace(work, norm=(mean.detach(), var.detach(), scale, shift, layer.eps)))


def _activate(waiting: Waiting, layer: Any, kind: type, x: Tensor) -> Deferred | None:
    if getattr(layer, "inplace", False):
        return None
    image = x.settle() if type(x) is Deferred else x
    slope = layer.weight if kind is nn.PReLU else _slope(0.0 if kind is nn.ReLU else layer.negative_slope)
    if not around.eligible(image) or not around.ordinary(slope) or slope.numel() not in (1, image.shape[1]):
        return None
    # The survey counts the NaNs before the activation: it must make none of an infinity or a 0.
    if kind is not nn.ReLU and not all(0 < abs(value) < inf for value in slope.flatten().tolist()):
        return None
    return waiting.add(Activated(image.detach(), slope.detach(), kind is nn.ReLU))


@lru_cache(maxsize=64)
def _slope(value: float) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor([value], dtype=torch.float32)
