"""Transposed NaN convolution: of each output, the window of those inputs that contribute to it."""

from torch import Generator, Tensor

from nanops.errors import InputError
from nanops.functional.convolution import check, finish, overridable
from nanops.functional.geometry import Geometry
from nanops.rule import Rule
from nanops.windows import Size, expand


def _transpose(
    dims: int, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size, output_padding: Size,
    dilation: Size, groups: int, rule: Rule, generator: Generator | None, return_skipped: bool,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    batched = check(dims, x, weight, bias, groups, transposed=True)
    s, d = expand(stride, dims, "stride"), expand(dilation, dims, "dilation")
    before, more = expand(padding, dims, "padding", least=0), expand(output_padding, dims, "output_padding", least=0)
    if any(m >= max(i, j) for m, i, j in zip(more, s, d, strict=True)):
        raise InputError(f"Expected output_padding below stride {s} or dilation {d}, got {more}.")
    after = tuple(b - m for b, m in zip(before, more, strict=True))
    geometry = Geometry(s, before, after, d, groups, transposed=True)
    return finish(x, weight, bias, geometry, rule, generator, batched, return_skipped)


@overridable
def nan_conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, threshold: float = 0.5, fill: str = "mean",
    sigma: float = 1e-3, generator: Generator | None = None, count_padding: bool = True, uniform: bool = False,
    return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Transposed NaN convolution of signals, (N, C, L) or (C, L); all else as `nan_conv_transpose2d`."""
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    steps = stride, padding, output_padding, dilation
    return _transpose(1, x, weight, bias, *steps, groups, rule, generator, return_skipped)


@overridable
def nan_conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, threshold: float = 0.5, fill: str = "mean",
    sigma: float = 1e-3, generator: Generator | None = None, count_padding: bool = True, uniform: bool = False,
    return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Return a transposed convolution that is NaN where what reaches an output is mostly NaN.

    The window of an output consists of the input positions that contribute to it: those of the taps k for which
    output + padding - k dilation is a multiple of the stride. Those outside the image are padding zeros, valid values
    as in `nan_conv2d`. Windows of different outputs may have different sizes, each its own share of NaN, mean and
    maximum; an output that nothing reaches is the bias, and no window. Without any NaN in x the result is torch's own,
    bit for bit.

    Args:
        x: (N, C, H, W) or (C, H, W), any floating dtype, device and memory format; never changed.
        weight: (C, O / groups, *kernel).
        bias: (O,).
        stride, padding, output_padding, groups, dilation: As in torch, and in its order.
        generator: Gives approach B its key. Outputs whose taps differ draw from streams of their own.
        threshold, fill, sigma, count_padding, uniform: As in `nan_conv2d`.
        return_skipped: Whether to return also where windows were skipped, boolean, (N, groups, H', W').

    Returns:
        (N, O, H', W'), x's dtype, in the memory format that torch would give.

    Raises:
        InputError: shapes, dtypes, devices or options that do not fit together.
    """
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    steps = stride, padding, output_padding, dilation
    return _transpose(2, x, weight, bias, *steps, groups, rule, generator, return_skipped)


@overridable
def nan_conv_transpose3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, threshold: float = 0.5, fill: str = "mean",
    sigma: float = 1e-3, generator: Generator | None = None, count_padding: bool = True, uniform: bool = False,
    return_skipped: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Transposed NaN convolution of volumes, (N, C, D, H, W) or (C, D, H, W); all else as `nan_conv_transpose2d`."""
    rule = Rule(threshold, fill, sigma, count_padding, uniform)
    steps = stride, padding, output_padding, dilation
    return _transpose(3, x, weight, bias, *steps, groups, rule, generator, return_skipped)
