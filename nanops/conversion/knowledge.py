"""What does each function of torch do to a NaN? By name, since torch, Tensor and functional spell them alike.

Four answers beside "it is replaced": the NaN stays where it is; it has to be 0 before; it would win or poison a
choice between classes; not known. What is not known is let through as long as no NaN arrives.
"""

# Nothing is computed: sizes, dtypes, flags.
METADATA = frozenset({
    "__get__", "__set__", "__delete__", "__len__", "__hash__", "__repr__", "__format__", "__bool__", "dim",
    "size", "numel", "nelement", "ndimension", "stride", "storage_offset", "is_contiguous", "is_floating_point",
    "is_complex", "get_device", "element_size", "data_ptr", "is_tensor", "is_nonzero", "requires_grad_",
    "is_same_size", "is_inference", "is_signed", "is_conj", "is_neg", "result_type", "promote_types", "can_cast",
    "register_hook", "retain_grad", "_set_grad_enabled", "set_grad_enabled", "untyped_storage", "backward",
    "sym_size", "sym_numel",
})  # fmt: skip

# The same values in the same order: what may be done with ties on their way from a pool to an unpool.
CARRIED = frozenset({"clone", "detach", "contiguous", "to", "cpu", "cuda", "long", "int", "alias", "detach_"})

_CREATED = {
    "arange", "as_tensor", "asarray", "empty", "empty_like", "empty_strided", "eye", "from_numpy", "full",
    "full_like", "linspace", "meshgrid", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "ones",
    "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm",
    "scalar_tensor", "tensor", "zeros", "zeros_like",
}  # fmt: skip

_MOVED = {
    "alias", "as_strided", "bfloat16", "broadcast_tensors", "broadcast_to", "cat", "channel_shuffle", "chunk",
    "clone", "column_stack", "concat", "concatenate", "contiguous", "copy", "cpu", "crop", "cuda", "detach",
    "diagonal", "double", "dstack", "expand", "expand_as", "flatten", "flip", "fliplr", "flipud", "float",
    "gather", "getitem", "half", "hsplit", "hstack", "index_copy", "index_fill", "index_put", "index_select",
    "masked_fill", "masked_scatter", "masked_select", "max_unpool1d", "max_unpool2d", "max_unpool3d", "moveaxis",
    "movedim", "mT", "narrow", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "ravel", "repeat",
    "repeat_interleave", "reshape", "reshape_as", "roll", "rot90", "scatter", "select", "select_scatter",
    "setitem", "slice_scatter", "split", "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t",
    "take", "take_along_dim", "tensor_split", "tile", "to", "transpose", "tril", "triu", "unbind", "unflatten",
    "unfold", "unsqueeze", "view", "view_as", "vsplit", "vstack", "where", "zero", "fill",
    "native_channel_shuffle", "type", "conj", "resolve_conj", "resolve_neg", "real", "type_as", "requires_grad",
    "pin_memory",
}  # fmt: skip

_ELEMENTWISE = {
    "abs", "absolute", "acos", "add", "addcdiv", "addcmul", "alpha_dropout", "asin", "asinh", "atan", "atan2",
    "atanh", "bernoulli", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "and", "or", "xor", "invert",
    "ceil", "celu", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "cos", "cosh", "div", "divide",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "elu", "eq", "equal", "erf", "erfc", "exp", "exp2", "expm1",
    "feature_alpha_dropout", "feature_dropout", "floor", "floor_divide", "floordiv", "fmod", "frac", "ge", "gelu",
    "greater", "greater_equal", "gt", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "heaviside", "hypot",
    "isclose", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "le", "leaky_relu", "lerp", "less",
    "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or",
    "logical_xor", "logit", "logsigmoid", "lt", "maximum", "minimum", "mish", "mod", "mul", "multiply", "ne",
    "neg", "negative", "not_equal", "positive", "pos", "pow", "prelu", "radd", "rdiv", "reciprocal", "relu",
    "relu6", "remainder", "rfloordiv", "rmod", "rmul", "round", "rpow", "rrelu", "rsqrt", "rsub", "rtruediv",
    "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softshrink", "softsign", "sqrt", "square",
    "sub", "subtract", "tan", "tanh", "tanhshrink", "threshold", "true_divide", "truediv", "trunc", "xlogy",
    "nan_to_num", "glu", "any", "all", "count_nonzero", "nansum", "nanmean",
}  # fmt: skip

# Of these the gradient of one operand is a product with the other: 0 times NaN, where no gradient may pass.
PRODUCTS = frozenset({
    "addcdiv", "addcmul", "atan2", "div", "divide", "fmod", "hypot", "lerp", "mul", "multiply", "pow", "prelu", "rdiv",
    "remainder", "rmul", "rpow", "rtruediv", "true_divide", "truediv", "xlogy",
})  # fmt: skip

# A NaN stays where it is, or goes where its value would go, and nowhere else.
LOCAL = frozenset(_CREATED | _MOVED | _ELEMENTWISE)

# NaN -> 0 before these, as the paper does before Xception's global pooling and linear layer.
ZEROED = frozenset({
    "linear", "addmm", "mean", "sum", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d",
})  # fmt: skip

# Choices between classes: the final policy applies before them.
HEADS = frozenset({
    "softmax", "log_softmax", "softmin", "gumbel_softmax", "logsumexp", "argmax", "argmin", "amax", "amin",
    "aminmax", "max", "min", "topk", "sort", "argsort",
})  # fmt: skip
# Those of them that leave a NaN at the position of its sample and pixel, where it can be seen.
SOFT = frozenset({"softmax", "log_softmax", "softmin"})
