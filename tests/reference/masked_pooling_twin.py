"""Pooling and unpooling with an oracle's masks, one window after the other, in Python numbers.

Arrays are numpy's, float64, of one image (size...); a mask is one of the same windows, or of the unpooled image.
"""

import math

import numpy as np

from tests.reference.pooling_twin import windows


def pool(x, mask, kernel, stride, padding, dilation, ceil_mode=False):
    """Return {place: (value, index)}: the largest number that is no NaN and the first place where it is.

    The value is NaN where the mask is, and where a window holds nothing but NaN; the index is None where a window holds
    no number at all.
    """
    found = {}
    for place, inside in windows(x.shape, kernel, stride, padding, dilation, ceil_mode):
        value, index = -math.inf if not inside else math.nan, None
        for _, position in inside:
            number = float(x[position])
            if not math.isnan(number) and (index is None or number > value):
                value, index = number, int(np.ravel_multi_index(position, x.shape))
        found[place] = (math.nan if mask[place] else value, index)
    return found


def unpool(values, indices, mask, size):
    """Return the image (size...): each value at its index, 0 elsewhere, and NaN where the mask is."""
    y = np.zeros(size).reshape(-1)
    for place in np.ndindex(values.shape):
        y[int(indices[place])] = values[place]
    y = y.reshape(size)
    for position in np.ndindex(*size):
        if mask[position]:
            y[position] = math.nan
    return y
