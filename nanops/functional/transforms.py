"""Who looks on? Transforms: vmap, one sample after the other; derivatives by autograd only. And dispatch modes."""

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def active() -> bool:
    """Return whether a transform of torch.func, or forward derivatives, are at work."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def watched() -> bool:
    """Return whether somebody's dispatch mode is at work, which perturbs arithmetic, say, or counts it.

    What kernels do no mode sees, so the operators then run in torch's own. Not meant are the modes with which torch
    makes its graphs.
    """
    if torch.compiler.is_compiling():
        return False
    return bool(_len_torch_dispatch_stack()) and is_in_torch_dispatch_mode(include_infra_modes=False)


def refuse_derivatives(*tensors: Tensor | None) -> None:
    """Raise RuntimeError where derivatives of these tensors are asked for that would be lost without a word."""
    if torch.compiler.is_compiling() or not active():
        return
    given = [t for t in tensors if t is not None]
    if any(torch._C._functorch.is_gradtrackingtensor(t) for t in given):
        raise RuntimeError(
            "Expected torch.autograd for gradients of a NaN operator, got a transform of torch.func."
        )
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in given):
        raise RuntimeError("Expected derivatives of a NaN operator in reverse mode, got forward-mode tangents.")
