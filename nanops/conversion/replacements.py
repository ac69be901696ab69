"""What stands for each function of torch that would spread a NaN? One function each, with torch's arguments."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import Tensor
from torch.jit._trace import is_tracing

from nanops import ledger
from nanops.conversion.options import Options
from nanops.conversion.place import Place, holds_nan
from nanops.conversion.pools import max_pool, max_unpool
from nanops.dense import dense_call
from nanops.functional import convolution, normalization, transposed
from nanops.functional.resize import AXES, nan_interpolate

Replacement = Callable[..., Any]
_CONV = {1: convolution.nan_conv1d, 2: convolution.nan_conv2d, 3: convolution.nan_conv3d}
_TRANSPOSED = {1: transposed.nan_conv_transpose1d, 2: transposed.nan_conv_transpose2d,
               3: transposed.nan_conv_transpose3d}  # fmt: skip


def _options(at: Place) -> Options:
    assert at.options is not None  # replacements are only called for layers that are converted
    return at.options


def _conv(dims: int) -> Replacement:
    def conv(
        at: Place, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        options = _options(at).convolution()
        return _CONV[dims](input, weight, bias, stride, padding, dilation, groups, **options)

    return conv


def _conv_transpose(dims: int) -> Replacement:
    def conv_transpose(
        at: Place, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Any:  # fmt: skip
        options = _options(at).convolution()
        return _TRANSPOSED[dims](input, weight, bias, stride, padding, output_padding, groups, dilation, **options)

    return conv_transpose


def _any_convolution(
    at: Place, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    dims = weight.dim() - 2
    if transposed:
        return _conv_transpose(dims)(at, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(dims)(at, input, weight, bias, stride, padding, dilation, groups)


def _interpolate(
    at: Place, input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    if antialias or mode not in AXES:
        if holds_nan(input):
            raise at.refuse(f"a NaN reached interpolate with mode {mode!r} and antialias={antialias}; "
                            f"known are {', '.join(AXES)} without antialias")  # fmt: skip
        return at.function(input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    threshold = _options(at).threshold
    return nan_interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor, threshold=threshold)


# torch.batch_norm and its like take their arguments in another order than torch.nn.functional.batch_norm.
def _low(at: Place) -> bool:
    return not isinstance(at.function, FunctionType)


def _batch_norm(at: Place, *args: Any, **kwargs: Any) -> Any:
    if _low(at):
        return _low_batch_norm(*args, **kwargs)
    if is_tracing() and not _training(*args, **kwargs):  # without gradients it is torch's own, which traces
        return at.function(*args, **kwargs)
    return normalization.nan_batch_norm(*args, **kwargs)


def _training(
    input: Tensor, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, training: bool = False,
    *rest: Any, **named: Any,
) -> bool:  # fmt: skip
    return training


def _low_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    return normalization.nan_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _instance_norm(at: Place, *args: Any, **kwargs: Any) -> Any:
    if _low(at):
        return _low_instance_norm(*args, **kwargs)
    return normalization.nan_instance_norm(*args, **kwargs)


def _low_instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    stats = running_mean, running_var, weight, bias
    return normalization.nan_instance_norm(input, *stats, use_input_stats, momentum, eps)


def _group_norm(
    at: Place, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Any:  # fmt: skip
    return normalization.nan_group_norm(input, num_groups, weight, bias, eps)


def _layer_norm(
    at: Place, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Any:  # fmt: skip
    return normalization.nan_layer_norm(input, normalized_shape, weight, bias, eps)


REPLACEMENTS: dict[str, Replacement] = {
    **{f"conv{d}d": _conv(d) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _conv_transpose(d) for d in (1, 2, 3)},
    "convolution": _any_convolution,
    **{f"max_pool{d}d": max_pool(d, False) for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": max_pool(d, True) for d in (1, 2, 3)},
    **{f"max_unpool{d}d": max_unpool(d) for d in (1, 2, 3)},
    "interpolate": _interpolate,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
}


def note_dense(at: Place, output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Report the convolution of a layer that stays as it is, and return its output."""
    if at.name.startswith("conv") and at.name != "convolution" and ledger.listening():
        transposed = at.name.startswith("conv_transpose")
        call = (_dense_transpose if transposed else _dense)(output, *args, **kwargs)
        ledger.note(call)
    return output


def _dense(
    output: Tensor, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> ledger.Call:  # fmt: skip
    return dense_call(input, weight, output, stride, 0, dilation, groups)


def _dense_transpose(
    output: Tensor, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> ledger.Call:  # fmt: skip
    return dense_call(input, weight, output, stride, padding, dilation, groups, transposed=True)
