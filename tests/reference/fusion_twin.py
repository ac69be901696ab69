"""One fusion node of E2ENet, voxel by voxel: pool, transposed convolution, shift, convolution, norm, activation."""

from itertools import product

import numpy as np


def up(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the transposed convolution of x (C, D, H, W) whose stride is its kernel, weight (C, O, *kernel)."""
    kernel = weight.shape[2:]
    y = np.zeros((weight.shape[1], *(n * k for n, k in zip(x.shape[1:], kernel, strict=True))))
    for o, d, h, w in np.ndindex(y.shape):
        for c in range(x.shape[0]):
            a, b, e = d // kernel[0], h // kernel[1], w // kernel[2]
            y[o, d, h, w] += x[c, a, b, e] * weight[c, o, d % kernel[0], h % kernel[1], w % kernel[2]]
    return y


def down(x: np.ndarray, kernel: tuple[int, int, int]) -> np.ndarray:
    """Return the largest value of each block of x (C, D, H, W)."""
    y = np.full((x.shape[0], *(n // k for n, k in zip(x.shape[1:], kernel, strict=True))), -np.inf)
    for c, d, h, w in np.ndindex(y.shape):
        for i, j, k in product(*map(range, kernel)):
            y[c, d, h, w] = max(y[c, d, h, w], x[c, d * kernel[0] + i, h * kernel[1] + j, w * kernel[2] + k])
    return y


def unit(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the shifted, convolved (weight (O, C, 1, 3, 3)), normalised and activated x (C, D, H, W)."""
    channels, depth, height, width = x.shape
    third = -(-channels // 3)
    y = np.zeros((weight.shape[0], depth, height, width))
    for o, d, h, w in np.ndindex(y.shape):
        value = bias[o]
        for c, i, j in product(range(channels), range(3), range(3)):
            a, b, e = d - (c // third - 1), h + i - 1, w + j - 1
            if 0 <= a < depth and 0 <= b < height and 0 <= e < width:
                value += weight[o, c, 0, i, j] * x[c, a, b, e]
        y[o, d, h, w] = value
    for o in range(len(y)):
        mean, n = y[o].sum() / y[o].size, y[o].size
        variance = ((y[o] - mean) ** 2).sum() / n
        y[o] = (y[o] - mean) / (variance + 1e-5) ** 0.5 * scale[o] + shift[o]
    return np.where(y < 0, 0.01 * y, y)
