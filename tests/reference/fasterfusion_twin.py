"""What does a FasterFusion block compute in eval mode? One output position at a time, in float64.

Weights are those of a block in training form by name: spatial, pointwise (absent where all channels are spatial), norm
(weight, bias, running_mean, running_var) and last.
"""

from itertools import product

import numpy as np

SLOPE = 0.01


def window_of(x, n, p, place):
    """Return the window of the spatial branch, (p, 3, ...), 0 outside the image, and the pixel of other channels."""
    size = x.shape[2:]
    window = np.zeros((p, *(3,) * len(size)))
    for c in range(p):
        for tap in product(range(3), repeat=len(size)):
            at = tuple(a + t - 1 for a, t in zip(place, tap, strict=True))
            if all(0 <= a < s for a, s in zip(at, size, strict=True)):
                window[(c, *tap)] = x[(n, c, *at)]
    return window, np.array([x[(n, c, *place)] for c in range(p, x.shape[1])])


def block(x, w, stride, threshold=None, eps=1e-5):
    """Return the output of a block, (N, c_o, *ceil(size / stride)).

    Args:
        x: (N, c_i, *size), float64.
        w: Arrays by name.
        threshold: None, or the share of NaN of a joint window from which on an output is NaN; NaNs of other windows are
            the mean of their valid values.
    """
    p, outputs = w["spatial.weight"].shape[1], w["last.weight"].shape[0]
    y = np.empty((x.shape[0], outputs, *x.shape[2:]))
    for n, *place in np.ndindex(x.shape[0], *x.shape[2:]):
        window, pixel = window_of(x, n, p, tuple(place))
        values = [*window.ravel(), *pixel]
        nans = [v for v in values if np.isnan(v)]
        if threshold is not None and nans:
            if len(nans) / len(values) >= threshold:
                y[(n, slice(None), *place)] = np.nan
                continue
            valid = [v for v in values if not np.isnan(v)]
            mean = sum(valid) / len(valid)
            window, pixel = np.where(np.isnan(window), mean, window), np.where(np.isnan(pixel), mean, pixel)
        middle = [np.sum(k * window) + b for k, b in zip(w["spatial.weight"], w["spatial.bias"], strict=True)]
        if "pointwise.weight" in w:
            kernels = w["pointwise.weight"].reshape(-1, len(pixel))
            middle += [np.sum(k * pixel) + b for k, b in zip(kernels, w["pointwise.bias"], strict=True)]
        norm = [w[f"norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        normal = [
            (m - mean) / np.sqrt(var + eps) * gamma + beta
            for m, mean, var, gamma, beta in zip(middle, *norm, strict=True)
        ]
        for o in range(outputs):
            total = w["last.bias"][o] + sum(a * b for a, b in zip(w["last.weight"][o].ravel(), normal, strict=True))
            y[(n, o, *place)] = total if total > 0 else SLOPE * total
    return pooled(y, stride) if max(stride) > 1 else y


def pooled(y, stride):
    """Return the largest value of each window of the size of the stride; windows at the end may be smaller."""
    size = [-(-n // s) for n, s in zip(y.shape[2:], stride, strict=True)]
    out = np.empty((*y.shape[:2], *size))
    for n, c, *place in np.ndindex(*out.shape):
        part = tuple(slice(a * s, (a + 1) * s) for a, s in zip(place, stride, strict=True))
        out[(n, c, *place)] = y[(n, c, *part)].max()
    return out


def fused(w, eps=1e-5):
    """Return the kernels and the sum of the biases of the two convolutions that do the same, in float64.

    Returns:
        spatial (c_o, p, 3, ...), pointwise (c_o, c_i - p) or None, bias (c_o,).
    """
    q = len(w["spatial.weight"])
    outputs = len(w["last.weight"])
    spatial = np.zeros((outputs, *w["spatial.weight"].shape[1:]))
    pointwise = np.zeros((outputs, w["pointwise.weight"].shape[1])) if "pointwise.weight" in w else None
    bias = np.array(w["last.bias"])
    for o in range(outputs):
        for k, factor in enumerate(w["last.weight"][o].ravel()):
            scale = w["norm.weight"][k] / np.sqrt(w["norm.running_var"][k] + eps)
            own = w["spatial.bias"][k] if k < q else w["pointwise.bias"][k - q]
            bias[o] += factor * ((own - w["norm.running_mean"][k]) * scale + w["norm.bias"][k])
            if k < q:
                spatial[o] += factor * scale * w["spatial.weight"][k]
            else:
                pointwise[o] += factor * scale * w["pointwise.weight"][k - q].ravel()
    return spatial, pointwise, bias
