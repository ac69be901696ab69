"""What does an operation do to the channels of what it is given?

Everything of a kind listed here keeps channel c of its inputs at channel c of its output; of several inputs each
channel meets its partner. What is not listed cannot be followed.
"""

import operator

import torch
import torch.nn.functional as F
from torch import nn

POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
    nn.LogSigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Softshrink,
    nn.Hardshrink, nn.Tanhshrink, nn.RReLU,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
SPATIAL_MODULES: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
)  # fmt: skip
KEEPING_MODULES = frozenset(POINTWISE_MODULES + SPATIAL_MODULES)

# The pooling functions look at return_indices first; torch.fx records what they lead to.
_POOLS = tuple(
    getattr(F, name.format(dims))
    for dims in (1, 2, 3)
    for name in (
        "avg_pool{}d", "adaptive_avg_pool{}d", "max_pool{}d", "_max_pool{}d", "max_pool{}d_with_indices",
        "adaptive_max_pool{}d", "_adaptive_max_pool{}d", "adaptive_max_pool{}d_with_indices", "max_unpool{}d",
    )
)  # fmt: skip
KEEPING_FUNCTIONS = frozenset((
    operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pos, operator.pow,
    operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne,
    operator.iadd, operator.isub, operator.imul, operator.itruediv,
    torch.add, torch.sub, torch.mul, torch.div, torch.neg, torch.maximum, torch.minimum, torch.where, torch.lerp,
    torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.log, torch.sqrt, torch.square, torch.pow, torch.abs,
    torch.clamp, torch.clone, torch.dropout,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.sigmoid, F.tanh, F.logsigmoid,
    F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.softsign,
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.interpolate, F.upsample,
    *_POOLS,
))  # fmt: skip
KEEPING_METHODS = frozenset((
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "maximum", "minimum", "relu", "relu_",
    "sigmoid", "sigmoid_", "tanh", "tanh_", "exp", "log", "sqrt", "square", "pow", "abs", "clamp", "clamp_",
    "contiguous", "clone", "detach", "float", "double", "half", "bfloat16", "to", "lerp", "where",
))  # fmt: skip
# Of two tensors they are pointwise; of one they are reductions.
OF_TWO = frozenset((torch.max, torch.min, "max", "min"))
CONCATENATIONS = frozenset((torch.cat, torch.concat, torch.concatenate))
REDUCTIONS = frozenset((
    torch.mean, torch.sum, torch.amax, torch.amin, torch.std, torch.var,
    "mean", "sum", "amax", "amin", "std", "var",
))  # fmt: skip


def canonical_axis(axis: int, ndim: int) -> int:
    """Return an axis counted from the first one."""
    return axis + ndim if axis < 0 else axis
