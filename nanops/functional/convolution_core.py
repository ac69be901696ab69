"""Which kernel runs a NaN convolution? The stock one where nothing is NaN, the compiled one, or torch operations."""

import warnings
from collections.abc import Callable
from functools import cache
from math import prod

import torch
from torch import Tensor

from nanops import kernels, ledger
from nanops.functional import convolution_torch
from nanops.kernels.convolution import Job, any_nan, serves
from nanops.rule import Rule
from nanops.windows import Windows

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int, rule: Rule, key: tuple[int, int],
    operator: str, stock: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the result, (N, O, *out), and where windows were skipped, boolean (N, groups, *out).

    Args:
        x: (N, C, *size).
        key: Of the draws of approach B.
        operator: Name for the ledger.
        stock: Torch's own call, for inputs without NaN.
    """
    counts = windows.counts
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _differentiable(x, weight, bias, windows, groups, rule, key, operator, stock)
    nothing = x.numel() == 0
    if nothing or not (rule.uniform or any_nan(x)):
        y = stock()
        skipped = torch.zeros((x.shape[0], groups, *counts), dtype=torch.bool, device=x.device)
        _note(operator, windows, weight, groups, skipped, None, "stock")
        return y, skipped
    if not serves(x):
        if x.device.type == "cpu" and kernels.library() is None:
            _announce()
        y, skipped = convolution_torch.convolve(x, weight, bias, windows, groups, rule, key)
        _note(operator, windows, weight, groups, skipped, None, "torch")
        return y.contiguous(memory_format=memory_format(x, weight)), skipped
    job = Job(x, weight, windows, groups, rule, key)
    if job.found.nans == 0 and job.found.uniform * 4 < prod(job.counts.shape):
        y = stock()
        skipped = torch.zeros((x.shape[0], groups, *counts), dtype=torch.bool)
        _note(operator, windows, weight, groups, skipped, None, "stock")
        return y, skipped
    y = job.convolve(bias, x.dtype).contiguous(memory_format=memory_format(x, weight))
    skipped = job.skipped
    _note(operator, windows, weight, groups, skipped, job, "compiled")
    return y, skipped


def memory_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    """Return the format of torch's own result: channels last where x or the weight is."""
    last = _FORMATS.get(x.ndim)
    if last is not None:
        for t in (x, weight):
            if t.is_contiguous(memory_format=last) and not t.is_contiguous():
                return last
    return torch.contiguous_format


def _differentiable(
    x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int, rule: Rule, key: tuple[int, int],
    operator: str, stock: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if not bool(x.detach().isnan().any()):
        y = stock()
        skipped = torch.zeros((x.shape[0], groups, *windows.counts), dtype=torch.bool, device=x.device)
        _note(operator, windows, weight, groups, skipped, None, "stock")
        return y, skipped
    y, skipped = convolution_torch.convolve(x, weight, bias, windows, groups, rule, key)
    _note(operator, windows, weight, groups, skipped, None, "torch")
    return y.contiguous(memory_format=memory_format(x, weight)), skipped


def _note(
    operator: str, windows: Windows, weight: Tensor, groups: int, skipped: Tensor, job: Job | None, route: str
) -> None:
    if not ledger.listening():
        return
    each = skipped.flatten(1).sum(1).cpu()
    total = prod(skipped.shape[1:])
    uniform = torch.zeros_like(each) if job is None else job.uniform.flatten(1).sum(1)
    macs = weight.shape[1] * windows.taps * (weight.shape[0] // groups)
    executed = (total - each - uniform) * macs if route == "compiled" else torch.full_like(each, total * macs)
    ledger.note(ledger.Call(operator, total, each, uniform, macs, executed, route))


@cache
def _announce() -> None:
    warnings.warn(f"NaN convolutions run in torch operations, which are exact but slow: {kernels.absence()}.", stacklevel=2)
