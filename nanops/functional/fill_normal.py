"""The draws of approach B, without the compiled kernel: the same functions of (key, group, window, element).

Philox4x32-10 (Salmon et al. 2011) for the bits, Box and Muller (1958) for the normal numbers. Sixty-four elements of a
window share sixteen counters: each gives four normals, sixteen elements apart.
"""

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_TURN = 2 * math.pi / 2**32


def normals(key: tuple[int, int], groups: int, first: int, places: int, elements: int, device: torch.device) -> Tensor:
    """Return standard normal numbers, float64 (groups, places, elements), of windows `first` to first + places - 1."""
    lanes = -(-elements // 64) * 16
    place = torch.arange(first, first + places, device=device)[None, :, None]
    group = torch.arange(groups, device=device)[:, None, None]
    lane = torch.arange(lanes, device=device)[None, None]
    words = _philox([group, place & _MASK, lane, place >> 32], key)
    cos, sin = zip(*(_box_muller(words[i], words[i + 1]) for i in (0, 2)), strict=True)
    z = torch.stack([cos[0], sin[0], cos[1], sin[1]], dim=-2)  # (groups, places, 4, lanes)
    z = z.unflatten(-1, (-1, 16)).transpose(-2, -3)  # (groups, places, parts, 4, 16)
    return z.flatten(2)[..., :elements]


def _philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return [c0, c1, c2, c3]


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of a b, both below 2^32, without leaving int64."""
    low, high = (a & 0xFFFF) * b, (a >> 16) * b  # below 2^48
    carried = high + (low >> 16)
    return carried >> 16, ((carried & 0xFFFF) << 16) | (low & 0xFFFF)


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    radius = ((u.to(torch.float64) + 0.5) / 2**32).log().mul(-2).sqrt()
    angle = v.to(torch.float64) * _TURN
    return radius * angle.cos(), radius * angle.sin()
