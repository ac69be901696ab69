"""What does FONDUE compute, written down as the recursion of its description?"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def residual(x: Tensor, w: Mapping[str, Tensor], alpha: Sequence[float], zoom: float, heads: Sequence[int]) -> Tensor:
    """Return sum(alpha_k final_k) / sum(alpha) for slices x (N, C, H, W); head k has the weights of final heads[k]."""
    f = 1 / zoom
    inner = tuple(32 * round(n / f / 32 + 1) for n in x.shape[-2:])

    def block(y: Tensor, name: str) -> Tensor:
        def act(v: Tensor) -> Tensor:
            return torch.where(v > 0, v, w[f"conv{name}.relu1.weight"] * v)

        def conv(k: int, v: Tensor) -> Tensor:
            return F.conv2d(v, w[f"conv{name}.conv{k}.weight"], w[f"conv{name}.conv{k}.bias"], padding=1)

        a = act(conv(1, y)) if name == "0_0" else torch.stack([conv(1, act(y)), y]).amax(0)
        if name == "0_0":
            return conv(3, act(torch.stack([conv(2, a), a]).amax(0)))
        return conv(3, act(torch.stack([conv(2, act(a)), a]).amax(0)))

    def bilinear(y: Tensor, size: tuple[int, ...]) -> Tensor:
        return F.interpolate(y, size=size, mode="bilinear", align_corners=False)

    @cache
    def pooled(level: int) -> tuple[Tensor, Tensor]:
        return F.max_pool2d(node(level, 0), 2, ceil_mode=True, return_indices=True)

    def spread(y: Tensor, level: int) -> Tensor:
        target, places = node(level, 0), pooled(level)[1]
        return torch.zeros_like(target).flatten(2).scatter(2, places.flatten(2), y.flatten(2)).view_as(target)

    @cache
    def node(i: int, j: int) -> Tensor:
        name = f"{i}_{j}"
        if j == 0:
            return block(x if i == 0 else bilinear(node(0, 0), inner) if i == 1 else pooled(i - 1)[0], name)
        below = node(i + 1, j - 1)
        up = bilinear(below, tuple(x.shape[-2:])) if i == 0 else spread(below, i)
        return block(torch.stack([*(node(i, k) for k in range(j)), up]).amax(0), name)

    out = torch.zeros(())
    for a, k, head in zip(alpha, range(1, 7), heads, strict=True):
        out = out + a * F.conv2d(node(0, k), w[f"final{head}.weight"], w[f"final{head}.bias"])
    return out / sum(alpha)
