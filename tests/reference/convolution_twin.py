"""What is the NaN convolution? One window at a time, in float64, as sections 3 and 4 and Appendix A of the paper say.

Every size, stride, padding and dilation is a tuple with one entry an axis; arrays are float64.
"""

from itertools import product

import numpy as np

OUTSIDE = None  # an element of a window that lies in the padding


def decide(window, threshold, fill, count_padding, draw, sigma):
    """Return the numbers that a window is computed with, or None where it is skipped.

    Args:
        window: (element, value) of each position, where value is a number, NaN or OUTSIDE.
        draw: The standard normal number of an element.
    Returns:
        The numbers in the same order.
    """
    counted = [0.0 if v is OUTSIDE else v for _, v in window if count_padding or v is not OUTSIDE]
    nans = sum(1 for v in counted if np.isnan(v))
    if nans and nans / len(counted) >= threshold:
        return None
    valid = [v for v in counted if not np.isnan(v)]
    numbers = []
    for element, v in window:
        if v is OUTSIDE:
            numbers.append(0.0)
        elif not np.isnan(v):
            numbers.append(v)
        elif fill == "mean":
            numbers.append(sum(valid) / len(valid))
        else:
            numbers.append(max(valid) + sigma * draw(element))
    return numbers


def convolve(x, outputs, groups, size, windows, weights, bias, rule, normals):
    """Return y (N, outputs, *size) and skipped (N, groups, *size).

    Args:
        windows: What each position of the output covers: a function of the position that gives (element's tap, place
            in the image or OUTSIDE).
        weights: The weight of a channel of the group and a tap for each output channel of the group: a function of
            (group, channel, tap).
        rule: threshold, fill, count_padding and sigma.
    """
    threshold, fill, count_padding, sigma = rule
    channels, per_group = x.shape[1] // groups, outputs // groups
    y = np.empty((x.shape[0], outputs, *size))
    skipped = np.zeros((x.shape[0], groups, *size), bool)
    for n, g, *place in np.ndindex(*skipped.shape):
        window, factors = [], []
        for c in range(channels):
            for number, tap, at in windows(tuple(place)):
                value = OUTSIDE if at is OUTSIDE else float(x[(n, g * channels + c, *at)])
                window.append(((c, number), value))
                factors.append(weights(g, c, tap))

        def draw(element, position=(n, g, *place)):
            return normals(position, element)

        numbers = decide(window, threshold, fill, count_padding, draw, sigma)
        skipped[(n, g, *place)] = numbers is None
        for o in range(per_group):
            total = np.nan
            if numbers is not None:
                total = sum((v * f[o] for v, f in zip(numbers, factors, strict=True)), 0.0)
                total += 0.0 if bias is None else bias[g * per_group + o]
            y[(n, g * per_group + o, *place)] = total
    return y, skipped


def nan_conv(
    x, weight, bias, stride, before, after, dilation, groups, threshold, fill, count_padding, normals=None, sigma=1e-3
):
    """Return the convolution of x and where its windows were skipped.

    A window is skipped, and NaN in every output channel of its group, where NaNs / its size >= threshold (in float64).
    Padding is 0, valid and counted, unless count_padding is False: then only real input is counted, averaged or the
    largest, and a window of padding only is computed.

    Args:
        x: (N, C, *size); weight: (O, C / groups, *kernel); bias: (O,) or None.
        before, after: Padding at the two ends of each axis.
        fill: "mean", NaNs become the mean of the window's valid values; "max_normal", the largest of them plus sigma
            times normals(position, element), with position (n, group, *place in y) and element (channel of the group,
            flat tap in the kernel).
    Returns:
        y, (N, O, *out), and skipped, bool (N, groups, *out).
    """
    kernel, dims = weight.shape[2:], len(weight.shape) - 2
    size = [
        (x.shape[2 + d] + before[d] + after[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in range(dims)
    ]

    def windows(place):
        for number, tap in enumerate(product(*map(range, kernel))):
            at = tuple(place[d] * stride[d] - before[d] + tap[d] * dilation[d] for d in range(dims))
            inside = all(0 <= at[d] < x.shape[2 + d] for d in range(dims))
            yield number, tap, at if inside else OUTSIDE

    def weights(g, c, tap):
        per_group = weight.shape[0] // groups
        return [float(weight[(g * per_group + o, c, *tap)]) for o in range(per_group)]

    rule = threshold, fill, count_padding, sigma
    return convolve(x, weight.shape[0], groups, size, windows, weights, bias, rule, normals)


def nan_conv_transpose(
    x, weight, bias, stride, padding, output_padding, dilation, groups, threshold, fill, count_padding,
    normals=None, sigma=1e-3,
):  # fmt: skip
    """Return the transposed convolution of x and where its windows were skipped; the rule is that of `nan_conv`.

    The window of an output position is the input positions that contribute to it: taps k for which
    position + padding - k * dilation is a multiple of the stride on every axis; those whose input lies outside the
    image are padding. An output that no tap contributes to is the bias.

    Args:
        x: (N, C, *size); weight: (C, O / groups, *kernel); bias: (O,) or None.
    Returns:
        y, (N, O, *out), and skipped, bool (N, groups, *out).
    """
    kernel, dims = weight.shape[2:], len(weight.shape) - 2
    channels = weight.shape[0] // groups
    size = [
        (x.shape[2 + d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (kernel[d] - 1) + output_padding[d] + 1
        for d in range(dims)
    ]

    def windows(place):
        for number, tap in enumerate(product(*map(range, kernel))):
            steps = [place[d] + padding[d] - tap[d] * dilation[d] for d in range(dims)]
            if any(steps[d] % stride[d] for d in range(dims)):
                continue
            at = tuple(steps[d] // stride[d] for d in range(dims))
            inside = all(0 <= at[d] < x.shape[2 + d] for d in range(dims))
            yield number, tap, at if inside else OUTSIDE

    def weights(g, c, tap):
        return [float(weight[(g * channels + c, o, *tap)]) for o in range(weight.shape[1])]

    rule = threshold, fill, count_padding, sigma
    return convolve(x, weight.shape[1] * groups, groups, size, windows, weights, bias, rule, normals)
