"""What does random rounding after every multiply-add or addition do? Slowly, step by step, for many samples at once.

Values are float32 numbers held in float64. A product of two of them is exact there; the error of an addition is found
exactly (Knuth 1969), so that each result is rounded to one of its two float32 neighbours as real arithmetic says.
"""

import numpy as np


class Rounding:
    """Random rounding of float64 arrays to float32, for one mode: `random` or `nearness`."""

    def __init__(self, mode: str, seed: int = 0) -> None:
        self.mode = mode
        self.generator = np.random.default_rng(seed)

    def round(self, high, low=0.0):
        """Return the exact result high + low rounded to float32 (as float64)."""
        near = high.astype(np.float32)
        rest = (high - near.astype(np.float64)) + low
        towards = np.where(rest > 0, np.float32(np.inf), np.float32(-np.inf))
        other = np.nextafter(near, towards)
        if self.mode == "random":
            go = self.generator.integers(0, 2, near.shape, dtype=np.int8) == 1
        else:
            gap = np.abs(other.astype(np.float64) - near)
            go = self.generator.random(near.shape, dtype=np.float32) * gap < np.abs(rest)
        return np.where((rest != 0) & go, other, near).astype(np.float64)

    def add(self, a, b):
        """Return a + b, rounded."""
        total = a + b
        part = total - a
        return self.round(total, (a - (total - part)) + (b - part))

    def fma(self, a, b, c):
        """Return a b + c, rounded once."""
        return self.add_exact(a * b, c)

    def add_exact(self, a, b):
        """Return the sum of two float64 arrays, rounded once to float32."""
        return self.add(a, b)


def chain(rounding: Rounding, x, w, samples: int, start=None):
    """Return `samples` results of the chain of multiply-adds start + x_0 w_0 + x_1 w_1 + ...

    Args:
        x, w: Factors in the order of their multiply-adds, (..., K).
        start: What the chain starts from, (...); 0 by default.
    """
    x, w = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(w, np.float64))
    shape = (samples, *x.shape[:-1])
    total = np.zeros(shape) if start is None else np.broadcast_to(np.asarray(start, np.float64), shape)
    for k in range(x.shape[-1]):
        total = rounding.fma(x[..., k], w[..., k], total)
    return total


def additions(rounding: Rounding, x, samples: int):
    """Return `samples` results of the sum of x (..., K), one addition after the other."""
    x = np.asarray(x, np.float64)
    total = np.broadcast_to(x[..., 0], (samples, *x.shape[:-1]))
    for k in range(1, x.shape[-1]):
        total = rounding.add(total, x[..., k])
    return total


def blocked_chain(rounding: Rounding, x, w, samples: int, block: int):
    """Return `samples` sums of products in blocks, each a chain of its own from zero, then added to the total."""
    total = None
    for begin in range(0, x.shape[-1], block):
        part = chain(rounding, x[..., begin : begin + block], w[..., begin : begin + block], samples)
        total = part if total is None else rounding.add(total, part)
    return total


def windows(x, kernel, stride, padding, dilation):
    """Return the explicit windows of a convolution: (N, C, *outputs, *kernel) from (N, C, *sizes)."""
    dims = len(kernel)
    x = np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0)] + [(p, p) for p in padding])
    outputs = [(x.shape[2 + d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in range(dims)]
    out = np.zeros((*x.shape[:2], *outputs, *kernel))
    for place in np.ndindex(*outputs):
        for tap in np.ndindex(*kernel):
            at = tuple(place[d] * stride[d] + tap[d] * dilation[d] for d in range(dims))
            out[(slice(None), slice(None), *place, *tap)] = x[(slice(None), slice(None), *at)]
    return out


def convolution(rounding: Rounding, x, w, bias, samples: int, stride, padding, dilation, groups: int, direct: bool):
    """Return `samples` results of a convolution in a stated order of its multiply-adds.

    Args:
        x, w: (N, C, *sizes) and (outputs, C / groups, *kernel).
        direct: The order is bias, channels in eights, taps, channels of the eight (oneDNN); else channels, taps, bias.
    """
    kernel = w.shape[2:]
    dims = len(kernel)
    taken = windows(x, kernel, stride, padding, dilation)
    per_group, outputs = w.shape[1], w.shape[0] // groups
    results = []
    for o in range(w.shape[0]):
        group = o // outputs
        part = taken[:, group * per_group : (group + 1) * per_group]
        part = np.moveaxis(part, 1, 1 + dims)  # (N, *outputs, C, *kernel)
        factors, weights = [], []
        for channel, tap in _order(per_group, kernel, 8 if direct else 1):
            factors.append(part[(..., channel, *tap)])
            weights.append(np.float64(w[(o, channel, *tap)]))
        first = None if bias is None or not direct else np.float64(bias[o])
        total = chain(rounding, np.stack(factors, -1), np.array(weights), samples, first)
        if bias is not None and not direct:
            total = rounding.add(total, np.float64(bias[o]))
        results.append(total)
    return np.stack(results, 2)


def _order(channels: int, kernel, unit: int):
    for begin in range(0, channels, unit):
        for tap in np.ndindex(*kernel):
            for channel in range(begin, min(begin + unit, channels)):
                yield channel, tap


def transposed_convolution(
    rounding: Rounding, x, w, bias, samples: int, stride, padding, dilation, groups: int, output_padding, direct: bool
):
    """Return `samples` results of a transposed convolution in a stated order of its multiply-adds.

    Args:
        x, w: (N, C, *sizes) and (C, outputs / groups, *kernel).
        direct: One chain, tap by tap (oneDNN); else for each tap a chain over the channels (sgemm), which is then added
            (col2im). The bias comes last.
    """
    kernel, dims = w.shape[2:], len(w.shape) - 2
    sizes, outputs, per_group = x.shape[2:], w.shape[1], w.shape[0] // groups
    full = [
        (sizes[d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (kernel[d] - 1) + 1 + output_padding[d]
        for d in range(dims)
    ]
    total = np.zeros((samples, x.shape[0], outputs * groups, *full))
    for o in np.ndindex(outputs * groups):
        group = o[0] // outputs
        channels = slice(group * per_group, (group + 1) * per_group)
        for tap in np.ndindex(*kernel):
            factors = np.moveaxis(np.asarray(x[:, channels], np.float64), 1, -1)
            weights = np.float64(w[(channels, o[0] % outputs, *tap)])
            column = None if direct else chain(rounding, factors, weights, samples)
            for place in np.ndindex(*sizes):
                at = tuple(place[d] * stride[d] - padding[d] + tap[d] * dilation[d] for d in range(dims))
                if all(0 <= a < n for a, n in zip(at, full, strict=True)):
                    index = (slice(None), slice(None), o[0], *at)
                    if direct:
                        total[index] = chain(rounding, factors[(slice(None), *place)], weights, samples, total[index])
                    else:
                        total[index] = rounding.add(total[index], column[(..., *place)])
    if bias is not None:
        total = rounding.add(total, np.asarray(bias, np.float64).reshape(-1, *[1] * dims))
    return total
