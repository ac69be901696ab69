"""What becomes of NaN before the head or the argmax, which would take it for the maximum?"""

import torch
from torch import Tensor

from nanops.errors import InputError, expect_choice
from nanops.functional.presence import check_floating

POLICIES = ("zero", "background", "keep")


def finalize(x: Tensor, policy: str = "zero", *, background: int = 0) -> tuple[Tensor, Tensor]:
    """Return x with its NaNs replaced, and how many each sample had.

    Args:
        x: (N, ...); logits, (N, K, ...), for "background".
        policy: "zero" puts 0 in the place of NaN, as the paper does; "background" gives every voxel with a NaN in any
            class the logits 1 for the class `background` and 0 for all others, finite so that logits can still be
            averaged, and its argmax is `background`; "keep" returns x itself.
        background: The class, 0 to K - 1.
    Returns:
        A tensor of the shape and dtype of x, and the number of NaNs in each sample of x, int64 (N,).
    Raises:
        InputError: a tensor, policy or class other than these.
    """
    expect_choice("policy", policy, POLICIES)
    check_floating(x, 2 if policy == "background" else 1, None, "(N, K, ...)" if policy == "background" else "(N, ...)")
    missing = x.isnan()
    count = missing.sum(tuple(range(1, x.dim()))) if x.dim() > 1 else missing.long()
    if policy == "keep":
        return x, count
    if policy == "zero":
        return torch.where(missing, 0, x), count
    if not 0 <= background < x.shape[1]:
        raise InputError(f"Expected background to be one of {x.shape[1]} classes from 0, got {background}.")
    classes = torch.arange(x.shape[1], device=x.device).reshape(-1, *[1] * (x.dim() - 2))
    chosen = (classes == background).to(x.dtype)
    return torch.where(missing.any(1, keepdim=True), chosen, x), count


def expect_policy(policy: str, background: int) -> None:
    """Raise InputError where a final policy is none of `POLICIES`, or its class is below 0."""
    expect_choice("policy", policy, POLICIES)
    if background < 0:
        raise InputError(f"Expected background to be a class from 0, got {background}.")
