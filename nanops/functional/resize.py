"""How is an image with NaN resized? By the weights of its valid neighbours, so that one NaN does not spread."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nanops.errors import InputError, expect_choice, expect_threshold
from nanops.functional.averages import average_valid
from nanops.functional.presence import check_floating, laid_out_as

# The spatial axes that each mode resizes; torch's other modes are refused, see `nan_interpolate`.
AXES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "trilinear": (3,)}


def nan_interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "bilinear",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    *,
    threshold: float = 0.5,
) -> Tensor:
    """Resize x as `torch.nn.functional.interpolate`, with the weights of NaN left out and the others renormalised.

    torch's modes "bicubic" and "lanczos" (some weights are negative) and "area" (`nan_adaptive_avg_pool2d` is that),
    and its `antialias`, are refused. The modes "nearest" and "nearest-exact" copy one value, NaN or not, and know no
    threshold. A neighbour of weight 0 counts for nothing if it is NaN; if it is infinite it makes NaN, as in torch.

    Args:
        x: (N, C, ...) with one to three spatial axes.
        mode: "nearest", "nearest-exact", "linear", "bilinear" or "trilinear"; torch's default is "nearest".
        threshold: The result is NaN where the weight of NaN neighbours, in float64, is at least this (up to 2^-40, so
            that no kernel's rounding decides); in (0, 1], and 1 means only where all of the weight is NaN's.
    Returns:
        The resized x in its dtype; torch's own bits where no NaN has any weight.
    Raises:
        InputError: a tensor, mode, size or threshold other than these.
    """
    expect_choice("mode", mode, AXES)
    expect_threshold(threshold)
    check_floating(x, 3, 5, "(N, C, ...) with one to three spatial axes")
    if x.dim() - 2 not in AXES[mode]:
        axes = AXES[mode][0]
        raise InputError(f"Expected x with {axes} spatial axes for mode {mode!r}, got shape {tuple(x.shape)}.")
    _check_size(x, size, scale_factor)
    if mode.startswith("nearest") and align_corners is not None:
        raise InputError(f"Expected no align_corners for mode {mode!r}, got {align_corners}.")
    if recompute_scale_factor and size is not None:
        raise InputError(f"Expected scale_factor to recompute, got size {size}.")

    def resize(t: Tensor) -> Tensor:
        return F.interpolate(t, size, scale_factor, mode, align_corners, recompute_scale_factor)  # type: ignore[arg-type]

    if mode.startswith("nearest"):
        return _copied(resize, x)
    return average_valid(resize, x, threshold)


def _copied(resize: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and x.requires_grad):
        return resize(x)
    missing = x.isnan()
    # A NaN has no gradient to send back to the one it was copied from.
    y = resize(torch.where(missing, 0, x))
    return laid_out_as(y, torch.where(resize(missing.to(x.dtype)) > 0, torch.nan, y))


def _check_size(x: Tensor, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None) -> None:
    if (size is None) == (scale_factor is None):
        raise InputError(f"Expected either size or scale_factor, got size={size} and scale_factor={scale_factor}.")
    axes = x.dim() - 2
    for name, given in (("size", size), ("scale_factor", scale_factor)):
        if isinstance(given, Sequence) and len(given) != axes:
            raise InputError(f"Expected {name} to be one number or {axes}, got {given}.")
        numbers = given if isinstance(given, Sequence) else [given]
        if name == "size" and not all(v is None or isinstance(v, int) for v in numbers):
            raise InputError(f"Expected size to be whole numbers, got {given}.")
        if any(v is not None and not v > 0 for v in numbers):
            raise InputError(f"Expected {name} to be more than 0, got {given}.")
