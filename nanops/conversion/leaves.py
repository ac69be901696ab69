"""Which layers of torch need no look at the functions they call? Those whose forward is known to be one such call.

Seen from Python, a call of a function costs as much as a small convolution. What stands for it is the same.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._C import _len_torch_function_stack
from torch.jit._trace import is_tracing

from nanops.conversion import chains
from nanops.conversion.deferred import Deferred, Waiting, settled
from nanops.conversion.options import Options
from nanops.conversion.place import pool_of
from nanops.functional import nan_conv1d, nan_conv2d, nan_conv3d
from nanops.functional.transforms import watched

_CONV: dict[type, Callable[..., Any]] = {nn.Conv1d: nan_conv1d, nn.Conv2d: nan_conv2d, nn.Conv3d: nan_conv3d}
_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}
# A NaN stays where it is.
_LOCAL = {
    nn.ReLU, nn.PReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.ReLU6, nn.Sigmoid, nn.Tanh,
    nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Identity,
}  # fmt: skip


def is_leaf(kind: type, options: Options | None) -> bool:
    """Return whether layers of this very class, with these options, are such layers."""
    return kind in _LOCAL or (options is not None and (kind in _CONV or kind in _NORMS))


def run(
    waiting: Waiting, module: Any, kind: type, options: Options | None, forward: Callable[[Tensor], Tensor], x: Any
) -> Tensor | None:
    """Return what a leaf makes of x, or None where its functions have to be looked at: gradients, graphs, ties.

    Nor where a mode of somebody else is on a stack beside the conversion's: it is to see the calls.

    Args:
        waiting: What is not computed yet; x may be part of it, and what is returned.
        module: The layer, and `kind` its class before it was converted.
        forward: Its own.
    """
    if type(x) not in (Tensor, Deferred) or torch.is_grad_enabled() or torch.compiler.is_compiling() or is_tracing():
        return None
    if pool_of(x) is not None or _len_torch_function_stack() > 1 or watched():
        return None
    if kind in _CONV and module.padding_mode != "zeros":
        return None
    if kind in _NORMS and (module.training or module.running_mean is None):
        return None
    with torch._C.DisableTorchFunction():
        linked = chains.link(waiting, module, kind, options, x)
        if linked is not None:
            return linked
        if getattr(module, "inplace", False):
            waiting.settle()
        x = settled(x)
        if kind not in _CONV:
            return forward(x)
        steps = module.stride, module.padding, module.dilation, module.groups
        y: Tensor = _CONV[kind](x, module.weight, module.bias, *steps, **cast(Options, options).convolution())
        return y
