"""Which operators never round? They are left alone.

Comparisons, selections, copies, padding with constants, integer arithmetic: an index becomes unstable only because
the values that it compares were perturbed upstream.
"""

from typing import Any

import torch

_NAMES = """
abs alias all amax amin aminmax any arange argmax argmin argsort as_strided bernoulli bitwise_and bitwise_not
bitwise_or bitwise_xor bucketize cat ceil celu_backward channel_shuffle chunk clamp clamp_max clamp_min clone concat
constant_pad_nd contiguous copy copy_ copysign cummax cummin detach diag diag_embed diagonal embedding empty
empty_like empty_permuted empty_strided eq equal expand expand_as eye fill fill_ flatten flip floor fmax fmin full
full_like gather ge gt hardtanh heaviside im2col index index_copy index_fill index_put index_select isfinite isin isinf
isnan isneginf isposinf is_nonzero is_same_size kthvalue le lift lift_fresh linspace logical_and logical_not logical_or
logical_xor lt masked_fill masked_scatter masked_select max max_pool1d_with_indices max_pool2d_with_indices
max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d
max_pool2d max_pool3d mkldnn_max_pool2d mkldnn_max_pool3d max_unpool2d max_unpool3d maximum median meshgrid min minimum
mode movedim nanmedian narrow narrow_copy ne neg new_empty new_empty_strided new_full new_ones new_zeros nonzero
nonzero_static one_hot ones ones_like permute pin_memory pixel_shuffle pixel_unshuffle positive rand rand_like randint
randint_like randn randn_like randperm reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape resize_ roll rot90 round scalar_tensor
scatter searchsorted select select_scatter set_ sgn sign signbit slice slice_scatter sort split split_with_sizes squeeze
stack stride sym_numel sym_size sym_storage_offset sym_stride t take tensor_split threshold tile topk trace_backward
transpose tril triu trunc unbind unfold unfold_copy unique_consecutive _unique2 unsafe_chunk unsafe_split
unsafe_split_with_sizes unsqueeze upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d view view_as view_as_complex view_as_real where zero zero_
zeros zeros_like _assert_async _local_scalar_dense _reshape_alias _to_copy _unsafe_index _unsafe_index_put _unsafe_view
normal normal_ uniform uniform_ random random_ bernoulli_ exponential_ native_dropout _has_compatible_shallow_copy_type
hardshrink softshrink_backward nan_to_num col2im_backward frexp ldexp nextafter logical_not_ bitwise_left_shift
bitwise_right_shift count_nonzero __and__ __or__ __xor__ __lshift__ __rshift__ floor_divide fmod remainder
"""

NAMES = frozenset(_NAMES.split())
# scatter(reduce="add"), round(decimals=2)
_INEXACT_OVERLOADS = frozenset(("reduce", "reduce_out", "value_reduce", "value_reduce_out", "decimals", "decimals_out"))


def is_exact(function: Any) -> bool:
    """Return whether this aten overload never rounds: by its name, or because it yields a view or no float."""
    name = function._schema.name.split("::")[1]
    if function._overloadname in _INEXACT_OVERLOADS or name == "to":  # to() may narrow
        return False
    if name in NAMES or (name.rstrip("_") in NAMES and name.endswith("_") and not name.startswith("__")):
        return True
    if name == "ldexp" or torch.Tag.inplace_view in function.tags:
        return True
    return bool(function.is_view)


def accumulates(function: Any, arguments: Any, options: Any) -> bool:
    """Return whether this call adds to what it writes: index_put with accumulate."""
    names = [a.name for a in function._schema.arguments]
    if "accumulate" not in names:
        return False
    place = names.index("accumulate")
    return bool(arguments[place] if place < len(arguments) else options.get("accumulate", False))


def narrows(function: Any, arguments: Any, options: Any) -> bool:
    """Return whether this call copies float64 numbers to float32, which rounds them."""
    name = function._schema.name
    if name == "aten::_to_copy":
        return arguments[0].dtype == torch.float64 and options.get("dtype") == torch.float32
    if name == "aten::copy_":
        return arguments[0].dtype == torch.float32 and arguments[1].dtype == torch.float64
    return False
