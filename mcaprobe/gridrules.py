"""How does each aten operator move the image grid?

Two tables of rules, by operator name: RESAMPLING gives, for the trailing dimensions, the step (scale, offset) from
an output index to an input index; STRUCTURE rebuilds the tag of a result whose dimensions were sliced, reordered,
regrouped or reduced. Elementwise operators need no rule of their own. One in no table leaves its result UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from mcaprobe.grids import UNKNOWN, Dim, Step, Tag, aligned, cut, joined, regroup, whole


def _each(value: Any, n: int) -> list[Any]:
    """Return torch's int-or-list argument as a list of n entries."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * n if len(values) == 1 else values


# Resampling of the trailing dimensions: rule(arguments, input sizes, output sizes) -> one step for each of them.


def _window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[Step]:
    return [(float(s), d * (k - 1) / 2 - p) for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True)]


def _convolution(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    n = a["weight"].ndim - 2
    kernel = list(a["weight"].shape[2:])
    steps = _window(kernel, *(_each(a[name], n) for name in ("stride", "padding", "dilation")))
    if not a["transposed"]:
        return steps
    return [(1 / scale, -offset / scale) for scale, offset in steps]  # the same relation, read backwards


def _pool(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    n = 3 if "3d" in a["operator"] else 2
    kernel = _each(a["kernel_size"], n)
    stride = _each(a["stride"], n) if a["stride"] not in ([], None) else kernel
    return _window(kernel, stride, _each(a["padding"], n), _each(a.get("dilation", 1), n))


def _adaptive(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    # Window i is [floor(i n/m), ceil((i+1) n/m)): its centre is the aligned one where m divides n, else within 1/2.
    n = 3 if "3d" in a["operator"] else 2
    return [aligned(b, c) for b, c in zip(before[-n:], after[-n:], strict=True)]


def _scales(a: dict[str, Any]) -> list[float | None]:
    return [a[name] for name in ("scales", "scales_d", "scales_h", "scales_w") if name in a]


def _upsample(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    steps = []
    for b, c, factor in zip(before[-len(_scales(a)) :], after[-len(_scales(a)) :], _scales(a), strict=True):
        scale = b / c if factor is None else 1 / factor
        if a["align_corners"]:
            corners = ((b - 1) / (c - 1), 0.0) if c > 1 else (1.0, 0.0)
            steps.append(corners if b > 1 else aligned(b, c))  # one voxel spread out keeps its field of view
        else:
            steps.append((scale, (scale - 1) / 2))
    return steps


def _nearest(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    """floor(i s) or, for nearest-exact, floor((i + 1/2) s): the line is the mean of this staircase over a period."""
    steps = []
    for b, c, factor in zip(before[-len(_scales(a)) :], after[-len(_scales(a)) :], _scales(a), strict=True):
        scale = Fraction(b, c) if factor is None else (1 / Fraction(factor)).limit_denominator(4096)
        lift = Fraction(1, 2 * scale.denominator)
        if "exact" in a["operator"]:
            lift = scale / 2 + (lift if scale.numerator % 2 == 0 else 0)
        steps.append((float(scale), float(lift - Fraction(1, 2))))
    return steps


def _pad(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    pad = a["pad"] if "pad" in a else a["padding"]
    return [(1.0, -float(left)) for left in reversed(pad[::2])]  # torch lists the last dimension first


def _shuffle(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    return [aligned(b, c) for b, c in zip(before[-2:], after[-2:], strict=True)]


def _unpool(a: dict[str, Any], before: Sequence[int], after: Sequence[int]) -> list[Step]:
    # Only for indices of unknown origin: a window of `stride` elements, placed at its centre.
    n = len(_each(a["output_size"], 2))
    stride = [max(1, round(c / b)) for b, c in zip(before[-n:], after[-n:], strict=True)]
    return [(1 / s, -(s - 1) / (2 * s)) for s in stride]


Resampling = Callable[[dict[str, Any], Sequence[int], Sequence[int]], list[Step]]
RESAMPLING: dict[str, Resampling] = {
    **dict.fromkeys(["convolution", "convolution_overrideable"], _convolution),
    **{name: _pool for n in "23" for name in (f"max_pool{n}d_with_indices", f"avg_pool{n}d")},
    **{name: _adaptive for n in "23" for name in (f"_adaptive_avg_pool{n}d", f"adaptive_avg_pool{n}d")},
    **{f"adaptive_max_pool{n}d": _adaptive for n in "23"},
    **dict.fromkeys(
        ["upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"], _upsample
    ),
    **dict.fromkeys(["_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"], _upsample),
    **{f"{kind}{n}d": _nearest for n in "123" for kind in ("upsample_nearest", "_upsample_nearest_exact")},
    "constant_pad_nd": _pad,
    **{f"{kind}_pad{n}d": _pad for n in "123" for kind in ("reflection", "replication")},
    **dict.fromkeys(["pixel_shuffle", "pixel_unshuffle"], _shuffle),
    **dict.fromkeys(["max_unpool2d", "max_unpool3d"], _unpool),
}


# Structure: rule(arguments, tag of the first tensor, its shape, shapes of the results) -> dimensions of each result.


def _slice(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dim, size = a["dim"] % len(shape), shape[a["dim"]]
    start = 0 if a["start"] is None else a["start"]
    start = min(max(start + size if start < 0 else start, 0), size)
    return [cut(tag.dims, dim, start, a["step"])]


def _select(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dim = a["dim"] % len(shape)
    return [tag.dims[:dim] + tag.dims[dim + 1 :]]


def _split(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dim, start, results = a["dim"] % len(shape), 0, []
    for out in outs:
        results.append(cut(tag.dims, dim, start))
        start += out[dim]
    return results


def _unbind(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    return [*_select(a, tag, shape, outs)] * len(outs)


def _permute(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    order = list(range(len(shape)))
    if "dims" in a:
        order = [d % len(shape) for d in a["dims"]]
    elif len(shape) > 1:
        i, j = (
            a.get("dim0", 0),
            a.get("dim1", 1),
        )  # aten.t has neither: it swaps the two dimensions of a matrix
        order[i], order[j] = order[j], order[i]
    return [tuple(tag.dims[d] for d in order)]


def _squeeze(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dims = a.get("dim", list(range(len(shape))))
    gone = {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)} if shape else set()
    return [tuple(d for i, d in enumerate(tag.dims) if not (i in gone and shape[i] == 1))]


def _unsqueeze(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dim = a["dim"] % (len(shape) + 1)
    return [(*tag.dims[:dim], None, *tag.dims[dim:])]


def _view(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    return [regroup(tag.dims, shape, outs[0])]


def _expand(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    new = len(outs[0]) - len(shape)
    kept: list[Dim] = [
        dim if dim is None or size == out else UNKNOWN
        for dim, size, out in zip(tag.dims, shape, outs[0][new:], strict=True)
    ]
    return [(None,) * new + tuple(kept)]


def _flip(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dims = tag.dims
    for dim in (d % len(shape) for d in a["dims"]):
        dims = cut(dims, dim, shape[dim] - 1, -1)
    return [dims]


def _lose(names: Sequence[str]) -> Structure:
    """Return the rule of an operator that shuffles the dimensions listed in one of its arguments."""

    def rule(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
        dims = next(a[name] for name in names if name in a)
        lost = {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)} or set(range(len(shape)))
        return [tuple(UNKNOWN if i in lost and d is not None else d for i, d in enumerate(tag.dims))] * len(outs)

    return rule


def _reduce(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    dims = a.get("dim")
    over = range(len(shape)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = {d % len(shape) for d in over} if shape else set()
    kept = [whole(d, shape[i]) if i in gone else d for i, d in enumerate(tag.dims)]
    return [tuple(d for i, d in enumerate(kept) if a.get("keepdim") or i not in gone)] * len(outs)


def _matmul(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    return [(*tag.dims[:-1], None)]  # rows stay where they are, columns are mixed into features


def _glu(a: dict[str, Any], tag: Tag, shape: Sequence[int], outs: Shapes) -> Results:
    return [tag.dims]


Shapes = Sequence[Sequence[int]]
Results = Sequence[tuple[Dim, ...]]
Structure = Callable[[dict[str, Any], Tag, Sequence[int], Shapes], Results]
STRUCTURE: dict[str, Structure] = {
    "slice": _slice,
    "select": _select,
    **dict.fromkeys(["split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"], _split),
    "unbind": _unbind,
    **dict.fromkeys(["permute", "transpose", "t", "numpy_T"], _permute),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy"], _view),
    "expand": _expand,
    "flip": _flip,
    "roll": _lose(["dims"]),
    "index_select": _lose(["dim"]),
    **dict.fromkeys(["gather", "topk"], _lose(["dim"])),
    **dict.fromkeys(["mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean"], _reduce),
    **dict.fromkeys(["prod", "logsumexp", "linalg_vector_norm", "norm", "argmax", "argmin", "any", "all"], _reduce),
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm"], _matmul),
    "glu": _glu,
}


PRIMARY = {
    "addmm": "mat1",
    "baddbmm": "batch1",
}  # the argument whose dimensions a structural rule rebuilds; else the first

# Operators of the shape of their arguments that torch does not tag as pointwise.
SAME = frozenset(
    [
        *("clone", "detach", "alias", "lift_fresh", "_to_copy", "contiguous", "copy", "fill", "zero", "where"),
        *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
        *("_batch_norm_with_update", "_batch_norm_no_update", "native_group_norm", "native_layer_norm"),
        *("_fused_rms_norm", "_softmax", "_log_softmax", "_safe_softmax", "prelu", "_prelu_kernel", "native_dropout"),
        *("log_sigmoid_forward", "rrelu_with_noise", "masked_fill", "bernoulli", "tril", "triu", "renorm"),
        *("cumsum", "cumprod", "cummax", "cummin"),
    ]
)


def concatenated(tags: Sequence[Tag | None], shapes: Shapes, dim: int) -> Tag:
    """Return the tag of `cat`: for each dimension the first argument whose place is known."""
    ndim = len(shapes[0])
    dims = [(None,) * ndim if tag is None else tag.dims for tag in tags]
    return Tag(joined(dims, [shape[dim % ndim] for shape in shapes], dim % ndim))
