"""Batch, instance, group and layer norm whose statistics are those of the valid values.

A NaN stays where it was and every other value stays finite: torch's own operators turn a whole group into NaN for one.
A group without NaN (a channel, an instance, a group of channels, a row) has torch's own bits, whatever the others hold;
one with NaN is computed in float32 or wider and rounded once. A group with a single valid value becomes the bias there,
as its variance is 0; one with an infinity becomes NaN, as in torch.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nanops.errors import InputError
from nanops.functional.presence import check_floating, kept_in_place, known_clean, laid_out_as


def nan_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel, as `torch.nn.functional.batch_norm`; NaN stays NaN.

    With the running statistics this is torch's own operator, which keeps a NaN where it is. With `training` the
    statistics are those of the channel's valid values in the whole batch; a channel with fewer than two of them leaves
    its running statistics as they are, since one value has no unbiased variance.

    Args:
        x: (N, C, ...).
        running_mean, running_var: (C,), updated in place when training; both may be None then.
        weight, bias: (C,).
        momentum: Share of the new statistics in the running ones.
    Returns:
        A tensor of the shape and dtype of x.
    Raises:
        InputError: a tensor of another shape or dtype, no statistics, or a training batch of one value a channel.
    """
    check_floating(x, 2, None, "(N, C, ...)")
    _check_vectors(x.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise InputError("Expected running_mean and running_var where training=False, got None.")
        return kept_in_place(
            lambda t: F.batch_norm(t, running_mean, running_var, weight, bias, False, momentum, eps), x, weight, bias
        )
    _check_eps(eps)
    if x.numel() == x.shape[1]:
        raise InputError(f"Expected more than one value a channel to train with, got x of shape {tuple(x.shape)}.")
    if known_clean(x):
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    dims = (0, *range(2, x.dim()))
    _track(running_mean, running_var, x, dims, momentum)
    return _normalize(
        x, x, dims, _per_channel(weight, x), _per_channel(bias, x), eps,
        lambda t: F.batch_norm(t, None, None, weight, bias, True, momentum, eps),
    )  # fmt: skip


def nan_instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample by its valid values, as `torch.nn.functional.instance_norm`.

    Args:
        x: (N, C, ...) with one to three spatial axes.
        running_mean, running_var: (C,), updated in place by the mean over those instances of a channel that have two
            valid values or more; used instead of the instance's own where `use_input_stats` is False.
        weight, bias: (C,).
    Returns:
        A tensor of the shape and dtype of x; an instance without a valid value is NaN.
    Raises:
        InputError: a tensor of another shape or dtype, no statistics, or instances of one value.
    """
    check_floating(x, 3, 5, "(N, C, ...) with one to three spatial axes")
    _check_vectors(x.shape[1], running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise InputError("Expected running_mean and running_var where use_input_stats=False, got None.")
        return kept_in_place(
            lambda t: F.instance_norm(t, running_mean, running_var, weight, bias, False, momentum, eps), x, weight, bias
        )
    _check_eps(eps)
    if prod(x.shape[2:]) == 1:
        raise InputError(f"Expected more than one position an instance, got x of shape {tuple(x.shape)}.")
    if known_clean(x):
        return F.instance_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    dims = tuple(range(2, x.dim()))
    _track(running_mean, running_var, x, dims, momentum)
    return _normalize(
        x, x, dims, _per_channel(weight, x), _per_channel(bias, x), eps,
        lambda t: F.instance_norm(t, None, None, weight, bias, True, momentum, eps),
    )  # fmt: skip


def nan_group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise groups of channels of each sample by their valid values, as `torch.nn.functional.group_norm`.

    Args:
        x: (N, C, ...).
        num_groups: A divisor of C.
        weight, bias: (C,).
    Returns:
        A tensor of the shape and dtype of x; a group without a valid value is NaN.
    Raises:
        InputError: a tensor of another shape or dtype, groups that do not divide the channels, or groups of one value.
    """
    check_floating(x, 2, None, "(N, C, ...)")
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise InputError(f"Expected num_groups to divide the {channels} channels of x, got {num_groups}.")
    _check_vectors(channels, weight=weight, bias=bias)
    _check_eps(eps)
    if known_clean(x):
        return F.group_norm(x, num_groups, weight, bias, eps)
    grouped = x.unflatten(1, (num_groups, channels // num_groups))
    return _normalize(
        x, grouped, tuple(range(2, grouped.dim())), _per_channel(weight, x), _per_channel(bias, x), eps,
        lambda t: F.group_norm(t, num_groups, weight, bias, eps),
    )  # fmt: skip


def nan_layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise the last axes of x by their valid values, as `torch.nn.functional.layer_norm`.

    Args:
        x: (..., *normalized_shape).
        weight, bias: Of shape `normalized_shape`.
    Returns:
        A tensor of the shape and dtype of x; a row without a valid value is NaN.
    Raises:
        InputError: a tensor of another shape or dtype.
    """
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    check_floating(x, 1, None, "(..., *normalized_shape)")
    if not shape or list(x.shape[-len(shape) :]) != shape:
        raise InputError(f"Expected x to end in the axes {tuple(shape)}, got shape {tuple(x.shape)}.")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and list(vector.shape) != shape:
            raise InputError(f"Expected {name} of shape {tuple(shape)}, got {tuple(vector.shape)}.")
    _check_eps(eps)
    if known_clean(x):
        return F.layer_norm(x, shape, weight, bias, eps)
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    return _normalize(x, x, dims, weight, bias, eps, lambda t: F.layer_norm(t, shape, weight, bias, eps))


def _normalize(
    x: Tensor,
    grouped: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    own: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return torch's own result for the groups without NaN and the one of the valid values for the others.

    Args:
        grouped: A view of x in which a group is what `dims` span.
        weight, bias: Broadcast against x.
        own: torch's operator. It sees zeros in the place of a group with NaN, which its gradients would not survive.
    """
    missing = grouped.isnan()
    broken = missing.any(dim=dims, keepdim=True)
    plain = own(torch.where(broken, 0, grouped).reshape(x.shape))
    centred, _, var, _ = _moments(grouped, missing, dims)
    z = (centred * torch.rsqrt(var + eps)).reshape(x.shape)
    if weight is not None:
        z = z * weight
    if bias is not None:
        z = z + bias
    # NaN comes last, so that no product with it has a gradient.
    aware = torch.where(missing.reshape(x.shape), torch.nan, z).to(plain.dtype)
    return laid_out_as(plain, torch.where(broken.expand_as(grouped).reshape(x.shape), aware, plain))


def _moments(x: Tensor, missing: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the valid values less their mean, 0 for a NaN; and mean, biased variance and number of them, `dims` kept.

    Where there is no valid value all of them are 0.
    """
    wide = torch.where(missing, 0, x).to(torch.promote_types(x.dtype, torch.float32))
    count = missing.logical_not().sum(dims, keepdim=True)
    some = count.clamp(min=1)
    mean = wide.sum(dims, keepdim=True) / some
    centred = torch.where(missing, 0, wide - mean)
    return centred, mean, centred.square().sum(dims, keepdim=True) / some, count


@torch.no_grad()
def _track(
    running_mean: Tensor | None, running_var: Tensor | None, x: Tensor, dims: tuple[int, ...], momentum: float
) -> None:
    """Move the running statistics towards those of the valid values, (C,); those of an instance count as one sample."""
    _, *found = _moments(x, x.isnan(), dims)
    mean, var, count = (t.reshape(-1, x.shape[1]) for t in found)
    enough = count > 1
    unbiased = var * count / (count - 1).clamp(min=1)
    for running, each in ((running_mean, mean), (running_var, unbiased)):
        if running is not None:
            average = torch.where(enough, each, 0).sum(0) / enough.sum(0).clamp(min=1)
            moved = (1 - momentum) * running + momentum * average
            running.copy_(torch.where(enough.any(0), moved, running))


def _per_channel(vector: Tensor | None, x: Tensor) -> Tensor | None:
    return None if vector is None else vector.reshape(-1, *[1] * (x.dim() - 2))


def _check_vectors(channels: int, **vectors: Tensor | None) -> None:
    for name, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise InputError(f"Expected {name} of shape ({channels},), got {tuple(vector.shape)}.")


def _check_eps(eps: float) -> None:
    # Without it a group of equal values is 0 / 0, a NaN that no value of x explains.
    if not eps > 0:
        raise InputError(f"Expected eps to be more than 0, got {eps}.")
