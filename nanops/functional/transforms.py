"""Which of torch's transforms reach a NaN operator? vmap, one sample after the other; derivatives by autograd only."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def active() -> bool:
    """Return whether a transform of torch.func, or forward derivatives, are at work."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


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
