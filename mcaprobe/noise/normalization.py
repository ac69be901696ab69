"""Batch norm, group and layer norm, softmax: the roundings of torch's own formulas, step by step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mcaprobe.noise.accumulation import Order
from mcaprobe.noise.reductions import mean, sum_
from mcaprobe.noise.site import Site

aten = torch.ops.aten


def batch_norm(
    site: Site,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten.native_batch_norm: alpha and beta for each channel, then one fused multiply-add.

    With batch statistics (instance norm calls it so) these are computed first, in double for float32; running
    statistics are updated by the stock operator.
    """
    if training or running_mean is None or running_var is None:
        dims = [0, *range(2, x.dim())]
        centre, inverse = (t.reshape(-1) for t in _batch_statistics(site, x, dims, epsilon))
        if running_mean is not None:
            aten.native_batch_norm(x, weight, bias, running_mean, running_var, training, momentum, epsilon)
    else:
        centre, inverse = running_mean, site.divide(1.0, site.sqrt(site.add(running_var, float(epsilon))))
    alpha = inverse if weight is None else site.multiply(inverse, weight)
    beta = site.fma(-centre, alpha, torch.zeros_like(alpha) if bias is None else bias)
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = site.fma(x, alpha.view(shape), beta.view(shape))
    return y, (centre if training else x.new_empty(0)), (inverse if training else x.new_empty(0))


def batch_norm_inference(
    site: Site,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten._native_batch_norm_legit_no_training."""
    return batch_norm(site, x, weight, bias, running_mean, running_var, False, momentum, epsilon)


def softmax(site: Site, x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """aten._softmax: x minus its maximum, exponential, sum, one division."""
    shifted = site.subtract(x, x.amax(dim, keepdim=True))
    e = site.wide(torch.exp, shifted)
    return site.divide(e, _softmax_sum(site, e, dim))


def log_softmax(site: Site, x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """aten._log_softmax: x minus its maximum minus the logarithm of the sum of exponentials."""
    shifted = site.subtract(x, x.amax(dim, keepdim=True))
    return site.subtract(shifted, site.wide(torch.log, _softmax_sum(site, site.wide(torch.exp, shifted), dim)))


def _softmax_sum(site: Site, e: Tensor, dim: int) -> Tensor:
    """Along the last dimension one vector of partial sums, added up pairwise; along another, one after the other."""
    last = dim in (-1, e.dim() - 1)
    return sum_(site, e, dim, True, order=Order(fused=False, vector=8, tree=True) if last else Order(fused=False))


def layer_norm(
    site: Site, x: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """aten.native_layer_norm: mean and variance of the last dimensions, then two multiply-adds."""
    dims = list(range(x.dim() - len(normalized_shape), x.dim()))
    centre, inverse = _moments(site, x, dims, epsilon)
    y = site.fma(x, inverse, -site.multiply(centre, inverse))
    return _scale(site, y, weight, bias), centre, inverse


def group_norm(
    site: Site,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    hw: int,
    group: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten.native_group_norm: mean and variance of each group, then one multiply-add for each channel."""
    centre, inverse = _moments(site, x.reshape(n, group, -1), [2], epsilon)
    shape = (n, group, c // group)
    scale = inverse.expand(shape) if weight is None else site.multiply(inverse, weight.view(1, group, -1))
    shift = site.fma(
        -centre.expand(shape), scale, torch.zeros_like(scale) if bias is None else bias.view(1, group, -1).expand(shape)
    )
    y = site.fma(x.reshape(n, c, -1), scale.reshape(n, c, 1), shift.reshape(n, c, 1)).view(x.shape)
    return y, centre.view(n, group), inverse.view(n, group)


def _batch_statistics(site: Site, x: Tensor, dims: list[int], epsilon: float) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32:
        return _moments(site, x, dims, epsilon)
    variance, centre = torch.var_mean(site.operand(x), dims, correction=0)
    return site.round(centre, x.dtype), site.round((variance + epsilon).rsqrt(), x.dtype)


def _moments(site: Site, x: Tensor, dims: list[int], epsilon: float) -> tuple[Tensor, Tensor]:
    centre = mean(site, x, dims, True)
    difference = site.subtract(x, centre)
    variance = mean(site, site.multiply(difference, difference), dims, True)
    return centre, site.divide(1.0, site.sqrt(site.add(variance, float(epsilon))))


def _scale(site: Site, y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None and bias is not None:
        return site.fma(y, weight, bias)
    if weight is not None:
        return site.multiply(y, weight)
    return y if bias is None else site.add(y, bias)


RULES: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm: batch_norm,
    aten._native_batch_norm_legit_no_training: batch_norm_inference,
    aten._softmax: softmax,
    aten._log_softmax: log_softmax,
    aten.native_layer_norm: layer_norm,
    aten.native_group_norm: group_norm,
}
