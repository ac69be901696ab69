"""The NaN convolution in torch operations: any device, any dtype, differentiable, and the route without a compiler.

Approach A by its algebra, conv(x0, K) + mu conv(m, K) with x0 = x where NaN -> 0 and m the indicator of NaN; approach
B, and inputs that hold infinities, window by window.
"""

from math import prod

import torch
from torch import Tensor

from nanops.functional.fill_normal import normals
from nanops.rule import Rule
from nanops.windows import Windows

_CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
_BYTES = 1 << 28  # of gathered windows that are in memory at once


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int, rule: Rule, key: tuple[int, int],
    sums: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the result, (N, O, *out), and where a window was skipped, boolean, (N, groups, *out).

    Args:
        x: (N, C, *size).
        weight: (O, C / groups, *kernel).
        key: Of the draws of approach B.
        sums: In which a window's NaNs are counted and its valid values added.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    half = wide != x.dtype
    nan = x.isnan()
    missing, skipped = _missing(nan, weight, windows, groups, rule, sums)
    values, w = (x.to(wide), weight.to(wide)) if half else (x, weight)
    b = bias.to(wide) if half and bias is not None else bias
    if rule.fill == "mean" and not bool(values.isinf().any()):
        y = _algebra(values, nan, missing, w, b, windows, groups, rule, sums)
    else:
        y = _gathered(values, w, b, windows, groups, rule, key, skipped)
    full = skipped.repeat_interleave(weight.shape[0] // groups, dim=1)
    return torch.where(full, torch.nan, y).to(x.dtype), skipped


def _missing(
    nan: Tensor, weight: Tensor, windows: Windows, groups: int, rule: Rule, sums: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the NaNs of each window, exact, and where they skip it; both (N, groups, *out)."""
    channels = weight.shape[1]
    counts = nan.to(sums).unflatten(1, (groups, channels)).sum(2)
    missing = _box(counts, windows)
    least = rule.least(channels, windows.taps).to(nan.device)
    return missing, missing.to(torch.float64) >= least[windows.inside(nan.device)]


def _box(x: Tensor, windows: Windows) -> Tensor:
    """Return the sum over each window, channel by channel, (N, C, *out)."""
    n, c = x.shape[:2]
    ones = x.new_ones((1, 1, *windows.kernel))
    return _stock(x.reshape(n * c, 1, *windows.size), ones, None, windows, 1).reshape(n, c, *windows.counts)


def _stock(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int) -> Tensor:
    conv = _CONV[len(windows.size)]
    return conv(_padded(x, windows), weight, bias, stride=windows.stride, dilation=windows.dilation, groups=groups)  # type: ignore[operator,no-any-return]


def _padded(x: Tensor, windows: Windows) -> Tensor:
    """Return the image with its padding; where that is negative, cut, and all of it may be cut."""
    ends: list[int] = []
    for axis, size in enumerate(windows.size):
        before, after = windows.before[axis], windows.after[axis]
        low, high = min(max(0, -before), size), max(0, min(size, size + after))
        if high <= low:  # nothing of the image is in any window
            low, high, before, after = 0, 0, size + before + after, 0
        x = x.narrow(axis + 2, low, high - low)
        ends = [max(0, before), max(0, after), *ends]
    return torch.nn.functional.pad(x, ends) if any(ends) else x


def _algebra(
    x: Tensor, nan: Tensor, missing: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int,
    rule: Rule, wide: torch.dtype,
) -> Tensor:  # fmt: skip
    zeroed = torch.where(nan, 0.0, x)
    outputs, channels = weight.shape[0], weight.shape[1]
    y = _stock(zeroed, weight, bias, windows, groups)
    holes = _stock(nan.to(x.dtype), weight, None, windows, groups)
    inside = torch.tensor(windows.taps) if rule.count_padding else windows.inside(x.device)
    valid = ((inside.to(x.device) * channels).to(wide) - missing).clamp(min=1)
    # In float64 the sum of a window does not overflow where its mean does not.
    sums = _box(zeroed.to(wide).unflatten(1, (groups, channels)).sum(2), windows)
    mean = torch.where(missing > 0, sums / valid, 0.0).to(x.dtype)
    return y + mean.repeat_interleave(outputs // groups, dim=1) * holes


def _gathered(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int, rule: Rule, key: tuple[int, int],
    skipped: Tensor,
) -> Tensor:  # fmt: skip
    n, dims = x.shape[0], len(windows.size)
    outputs, channels, taps = weight.shape[0], weight.shape[1], windows.taps
    index, inside = windows.indices(x.device)
    places = index.shape[0]
    flat = x.reshape(n, groups, channels, prod(windows.size))
    # Elements of a window in the order of the compiled kernel: taps first, then the channels of the group.
    w = weight.flatten(2).unflatten(0, (groups, outputs // groups)).permute(0, 3, 2, 1)
    w = w.reshape(groups, taps * channels, -1)
    some = max(1, _BYTES // max(1, 8 * n * groups * channels * taps))
    parts, gone = [], skipped.flatten(2)[..., None]
    for first in range(0, places, some):
        at, within = index[first : first + some], inside[first : first + some]
        v = flat[..., at]  # (N, groups, channels, places, taps)
        v = torch.where(within, v, 0.0).permute(0, 1, 3, 4, 2).flatten(3)
        valid = ~v.isnan()
        if not rule.count_padding:
            valid = valid & within.repeat_interleave(channels, dim=1)
        fill = _fill(v, valid, rule, key, first, groups)
        # What is skipped has no part in the gradients either, not even as 0 times infinity.
        v = torch.where(gone[:, :, first : first + some], 0.0, torch.where(v.isnan(), fill, v))
        parts.append(v @ w)
    y = torch.cat(parts, dim=2).movedim(3, 2).reshape(n, outputs, *windows.counts)
    return y if bias is None else y + bias.reshape(-1, *(1,) * dims)


def _fill(v: Tensor, valid: Tensor, rule: Rule, key: tuple[int, int], first: int, groups: int) -> Tensor:
    """Return what stands for NaN in windows (N, groups, places, elements), of that shape or with one element."""
    if rule.fill == "mean":
        count = valid.sum(-1, keepdim=True).clamp(min=1)
        return (torch.where(valid, v, 0.0).to(torch.float64).sum(-1, keepdim=True) / count).to(v.dtype)
    most = torch.where(valid, v, -torch.inf).amax(-1, keepdim=True)
    draws = normals(key, groups, first, v.shape[2], v.shape[3], v.device).to(v.dtype)
    return most + rule.sigma * draws
