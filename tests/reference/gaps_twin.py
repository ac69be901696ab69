"""The least tolerance at which a window is ambiguous, window by window, in Python numbers."""

import math
import struct


def rank(value):
    (integer,) = struct.unpack("<i", struct.pack("<f", value))
    return integer if integer >= 0 else -(integer & 0x7FFFFFFF)


def gaps(image, kernel, stride, padding, kind, max_ties):
    """Return rows of gaps of an image given as rows of numbers."""
    height, width = len(image), len(image[0])
    found = []
    for top in range(-padding, height + padding - kernel + 1, stride):
        line = []
        for left in range(-padding, width + padding - kernel + 1, stride):
            values = [
                image[y][x]
                for y in range(top, top + kernel) for x in range(left, left + kernel)
                if 0 <= y < height and 0 <= x < width
            ]  # fmt: skip
            values.sort(reverse=True)
            if len(values) <= max_ties:
                line.append(math.inf)
                continue
            most, other = values[0], values[max_ties]
            if kind == "ulps":
                line.append(float(rank(most) - rank(other)))
            elif kind == "absolute" or most == other:
                line.append(most - other)
            else:
                line.append((most - other) / abs(most) if most else math.inf)
        found.append(line)
    return found
