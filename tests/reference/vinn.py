"""What does FastSurferVINN compute, written down from its published description with nothing but formulas?

A slow twin: numpy in float64, loops over kernel positions and windows, weights straight from a state dict.
"""

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]


def convolution(x: Array, weight: Array, bias: Array) -> Array:
    """Return a stride-1 convolution of x (C, H, W), zero-padded to keep its size."""
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((weight.shape[0], *x.shape[1:])) + bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            out += np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + x.shape[1], j : j + x.shape[2]])
    return out


def normalization(x: Array, w: Weights, name: str) -> Array:
    """Return batch normalisation in inference."""
    mean, var = (w[f"{name}.running_{k}"][:, None, None] for k in ("mean", "var"))
    return (x - mean) / np.sqrt(var + 1e-5) * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def block(x: Array, w: Weights, name: str, kind: str) -> Array:
    """Return one dense block: `kind` is dense, input or output; the last two do not compete in their first step."""
    norm = "bn" if kind == "dense" or name == "encode1" else "gn"

    def act(v: Array) -> Array:
        return np.where(v >= 0, v, w[f"{name}.prelu.weight"] * v)

    def conv(i: int, v: Array) -> Array:
        v = convolution(v, w[f"{name}.conv{i}.weight"], w[f"{name}.conv{i}.bias"])
        return normalization(v, w, f"{name}.{norm}{i + 1}")

    if kind == "input":
        a = conv(0, normalization(x, w, f"{name}.bn0"))
    elif kind == "output":
        a = conv(0, act(x))
    else:
        a = np.maximum(conv(0, act(x)), x)
    b = np.maximum(conv(1, act(a)), a)
    c = np.maximum(conv(2, act(b)), b)
    return conv(3, act(c))


def pool(x: Array) -> tuple[Array, Array]:
    """Return the maxima of the 2 x 2 windows and, in the input's shape, where (bool) each window's first one is."""
    small = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
    where = np.zeros(x.shape, bool)
    for c, i, j in np.ndindex(small.shape):
        window = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = divmod(int(window.argmax()), 2)
        small[c, i, j] = window[row, column]
        where[c, 2 * i + row, 2 * j + column] = True
    return small, where


def vinn(x: Array, w: Weights) -> Array:
    """Return the logits (classes, H, W) of slices (C, H, W) at scale 1."""
    first = block(x, w, "inp_block", "input")
    y, memory = first, []
    for level in range(1, 5):
        skip = block(y, w, f"encode{level}", "input" if level == 1 else "dense")
        y, where = pool(skip)
        memory.append((skip, where))
    y = block(y, w, "bottleneck", "dense")
    for level in range(4, 0, -1):
        skip, where = memory[level - 1]
        spread = np.where(where, y.repeat(2, axis=1).repeat(2, axis=2), 0.0)
        y = block(np.maximum(spread, skip), w, f"decode{level}", "dense")
    y = block(np.concatenate([y, first]), w, "outp_block", "output")
    return convolution(y, w["classifier.conv.weight"], w["classifier.conv.bias"])
