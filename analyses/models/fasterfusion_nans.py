"""When is an output of a block NaN whose input channels are split between a spatial and a pointwise convolution?

The window of an output is that of the spatial branch and the pixel of the pointwise one together: w = 3^d p + (c_i - p)
values, padding zeros among them. Where NaNs / w >= threshold the output is NaN in every channel; elsewhere NaNs become
the mean of the valid ones of these w values (approach A of the NaN convolution). Both depend on the block's input
alone, so all forms of a block agree. Convolution by convolution they do not: in training form the last one sees two
kinds of channels, of which one may be NaN alone.

Computed densely, by conv(x0) + mean conv(m) with x0 = x where NaN -> 0 and m the indicator of NaN: no work is
saved, and `nanops.count_skipped` counts these dense convolutions, not what a kernel of this rule would skip.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv3d

Convolution = nn.Conv2d | nn.Conv3d


def joint_branches(
    x: Tensor, spatial: Convolution, pointwise: Convolution | None, threshold: float
) -> tuple[list[Tensor], Tensor]:
    """Return the results of the branches for the filled windows, and where the output is NaN, bool (N, 1, *size).

    Args:
        x: (N, c_i, *size), NaN or finite; the spatial branch reads its first channels.
        threshold: In (0, 1].
    """
    p, taps = spatial.in_channels, prod(spatial.kernel_size)
    size = taps * p + x.shape[1] - p
    nan = x.isnan()
    zeroed = torch.where(nan, 0.0, x)
    missing = _window_sums(nan, p, taps)
    mean = (_window_sums(zeroed, p, taps) / (size - missing).clamp(min=1)).to(x.dtype)
    mean = torch.where(missing > 0, mean, 0.0)  # an infinity where nothing is missing stays with its own products
    holes = nan.to(x.dtype)
    parts = [_filled(spatial, zeroed[:, :p], holes[:, :p], mean)]
    if pointwise is not None:
        parts.append(_filled(pointwise, zeroed[:, p:], holes[:, p:], mean))
    return parts, missing / size >= threshold


def _window_sums(values: Tensor, p: int, taps: int) -> Tensor:
    """Return the sum over each joint window, float64 (N, 1, *size)."""
    wide = values.to(torch.float64)
    first, rest = wide[:, :p].sum(1, keepdim=True), wide[:, p:].sum(1, keepdim=True)
    dims = values.ndim - 2
    width = round(taps ** (1 / dims))
    ones = first.new_ones((1, 1, *(width,) * dims))
    return (conv2d if dims == 2 else conv3d)(first, ones, padding=width // 2) + rest


def _filled(conv: Convolution, zeroed: Tensor, holes: Tensor, mean: Tensor) -> Tensor:
    plain = conv2d if isinstance(conv, nn.Conv2d) else conv3d
    return conv(zeroed) + mean * plain(holes, conv.weight, padding=conv.padding)  # type: ignore[arg-type]
