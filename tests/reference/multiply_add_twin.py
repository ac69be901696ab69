"""The slow, obvious convolution and matrix product: round randomly to float32 after every multiply-add.

Shares no code with mcaprobe. Sums are carried in float64, in which the product of two float32 numbers is exact, and
rounded to one of the two neighbouring float32 numbers after each step.
"""

from itertools import product

import numpy as np


def round_randomly(wide: np.ndarray, mode: str, rng: np.random.Generator) -> np.ndarray:
    """Round float64 numbers to a float32 neighbour: `random` with probability 1/2, `nearness` by distance."""
    nearest = wide.astype(np.float32)
    error = wide - nearest.astype(np.float64)
    other = np.nextafter(nearest, np.where(error > 0, np.float32(np.inf), np.float32(-np.inf)))
    if mode == "random":
        chance = np.full(wide.shape, 0.5)
    else:
        chance = np.abs(error) / np.abs(other.astype(np.float64) - nearest)
    return np.where((error != 0) & (rng.random(wide.shape) < chance), other, nearest)


def multiply_add(
    a: np.ndarray, b: np.ndarray, start: np.ndarray, samples: int, mode: str, rng: np.random.Generator
) -> np.ndarray:
    """Return samples of start + sum_k a[k] b[k], one rounding per step in the order of k.

    Args:
        a, b: float32, (terms, elements).
        start: float32, (elements,).
    Returns:
        float32, (samples, elements).
    """
    total = np.broadcast_to(start.astype(np.float32), (samples, start.size)).copy()
    for left, right in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        total = round_randomly(total.astype(np.float64) + left * right, mode, rng)
    return total


def convolution_terms(
    x: np.ndarray,
    weight: np.ndarray,
    output: tuple[int, ...],
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    eights: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors of one output's products, in the kernel's order.

    Args:
        x: (channels, *spatial); weight: (outputs, channels / groups, *kernel).
        output: (output channel, *position).
        eights: the order of oneDNN's direct kernel: channels / 8, kernel position, channel within the eight; else
            channel, kernel position.
    """
    o, *position = output
    channels = weight.shape[1]
    offset = o // (weight.shape[0] // groups) * channels
    taps = list(product(*(range(k) for k in weight.shape[2:])))
    if eights:
        order = [
            (c, tap) for block in range(0, channels, 8) for tap in taps for c in range(block, min(block + 8, channels))
        ]
    else:
        order = [(c, tap) for c in range(channels) for tap in taps]
    left, right = [], []
    for c, tap in order:
        place = [p * stride - padding + t * dilation for p, t in zip(position, tap, strict=True)]
        inside = all(0 <= p < n for p, n in zip(place, x.shape[1:], strict=True))
        left.append(x[(offset + c, *place)] if inside else 0.0)
        right.append(weight[(o, c, *tap)])
    return np.array(left, np.float32), np.array(right, np.float32)
