"""Pooling and unpooling with ties, one window after the other, in Python numbers.

Arrays are numpy's, float64, of one image (size...); numbers of a narrower format are given as float64 with its name.
"""

import itertools
import math
import struct

import numpy as np

FORMATS = {"float16": "e", "float32": "f", "float64": "d"}


def rounded(value: float, name: str) -> float:
    """Return the number of the format nearest to value; of the narrow ones, that of float32."""
    if name == "float64":
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def steps(value: float, name: str) -> int:
    """Return how many numbers of the format lie between 0 and a finite value, negative where it is."""
    if name == "bfloat16":
        pattern = struct.unpack("I", struct.pack("f", abs(value)))[0] >> 16
    else:
        code = FORMATS[name]
        kind = {"e": "H", "f": "I", "d": "Q"}[code]
        pattern = struct.unpack(kind, struct.pack(code, abs(value)))[0]
    return -pattern if value < 0 else pattern


def ties(value: float, largest: float, name: str, kind: str, amount: float) -> bool:
    """Return whether a value ties with the largest of its window."""
    if math.isnan(value):
        return False
    if value == largest:
        return True
    if math.isinf(value) or math.isinf(largest):
        return False
    if kind == "ulps":
        return abs(steps(value, name) - steps(largest, name)) <= amount
    distance = rounded(abs(value - largest), name)
    if kind == "absolute":
        return distance < amount
    reach = rounded(rounded(amount, name) * abs(largest), name)
    if kind == "isclose":
        reach = rounded(rounded(1e-8, name) + reach, name)
    return distance <= reach


def count(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Return the windows along an axis: all that fit; rounded up, also those that begin before the end."""
    windows = 0
    while True:
        start = windows * stride - padding
        fits = start + dilation * (kernel - 1) < size + padding
        # The first one that hangs over is a window too, where its start is inside.
        previous = start - stride + dilation * (kernel - 1) + 1
        hangs = ceil_mode and start < size and (previous < size + padding)
        if not (fits or hangs):
            return windows
        windows += 1


def windows(size, kernel, stride, padding, dilation, ceil_mode=False, counts=None):
    """Yield (place, [(tap, position)]) with the positions inside the image only."""
    if counts is None:
        counts = [count(*a, ceil_mode) for a in zip(size, kernel, stride, padding, dilation, strict=True)]
    for place in itertools.product(*(range(n) for n in counts)):
        inside = []
        for tap, offsets in enumerate(itertools.product(*(range(k) for k in kernel))):
            position = tuple(
                w * s - p + o * d for w, s, p, o, d in zip(place, stride, padding, offsets, dilation, strict=True)
            )
            if all(0 <= i < n for i, n in zip(position, size, strict=True)):
                inside.append((tap, position))
        yield place, inside


def pool(x, kernel, stride, padding, dilation, ceil_mode, *, name, kind, amount, max_ties=math.inf):
    """Return {place: (value, index, set of tied taps)} of one image x.

    The index is flat, of the first maximum, or of the first position where more than `max_ties` tie.
    """
    found = {}
    for place, inside in windows(x.shape, kernel, stride, padding, dilation, ceil_mode):
        valid = [(tap, position) for tap, position in inside if not math.isnan(x[position])]
        if not inside:
            found[place] = (-math.inf, 0, set())
            continue
        first = int(np.ravel_multi_index(inside[0][1], x.shape))
        if not valid:
            found[place] = (math.nan, first, {tap for tap, _ in inside})
            continue
        _, where = max(valid, key=lambda entry: x[entry[1]])  # the first of several
        largest = float(x[where])
        near = {tap for tap, position in valid if ties(float(x[position]), largest, name, kind, amount)}
        if len(near) > max_ties:
            found[place] = (math.nan, first, near)
        else:
            found[place] = (largest, int(np.ravel_multi_index(where, x.shape)), near)
    return found


def unpool(entries, size, kernel, stride, padding, dilation, *, overlap):
    """Return the image (size...), from {place: (value, set of tied taps)}."""
    counts = [1 + max(place[a] for place in entries) for a in range(len(size))]
    said = {}
    for place, inside in windows(size, kernel, stride, padding, dilation, counts=counts):
        value, near = entries[place]
        for tap, position in inside:
            if tap in near:
                said.setdefault(position, []).append(value if len(near) == 1 else math.nan)
    y = np.zeros(size)
    for position, values in said.items():
        numbers = [v for v in values if not math.isnan(v)]
        if not numbers or (overlap == "nan" and len(numbers) < len(values)):
            y[position] = math.nan
        else:
            y[position] = max(numbers, key=lambda v: (v, math.copysign(1.0, v)))
    return y
