"""How much work is a convolution that skips nothing? What torch's own would report, if it reported."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from nanops.functional.geometry import Geometry
from nanops.ledger import Call
from nanops.windows import expand


def dense_call(
    input: Tensor, weight: Tensor, output: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1, *, transposed: bool = False,
) -> Call:  # fmt: skip
    """Return the report of torch's own convolution, `route` "stock" and nothing skipped.

    Args:
        output: Its result, whose size tells what the padding was.
    """
    dims = weight.dim() - 2
    samples = output.shape[0] if output.dim() == dims + 2 else 1
    out = tuple(output.shape[-dims:])
    name = f"{'conv_transpose' if transposed else 'conv'}{dims}d"
    windows, macs = groups * prod(out), float(weight.numel() // groups)
    if transposed:
        windows, macs = _transposed(input, weight, out, stride, padding, dilation, groups)
    none = torch.zeros(samples, dtype=torch.int64)
    return Call(name, windows, none, none, macs, torch.full_like(none, round(windows * macs)), "stock")


def _transposed(
    input: Tensor, weight: Tensor, out: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[int, float]:
    """Return the windows, which are outputs that something reaches, and the mean work of one."""
    dims = len(out)
    s, d = expand(stride, dims, "stride"), expand(dilation, dims, "dilation")
    before = expand(padding, dims, "padding", least=0)
    sizes = zip(input.shape[-dims:], weight.shape[2:], s, d, before, out, strict=True)
    after = tuple((n - 1) * i + j * (k - 1) + 1 - b - o for n, k, i, j, b, o in sizes)
    geometry = Geometry(s, before, after, d, groups, transposed=True)
    batch = input if input.dim() == dims + 2 else input[None]
    windows = work = 0
    for part in geometry.parts(batch, weight):
        if part.windows is not None:
            count = prod(part.windows.counts) * groups
            windows, work = windows + count, work + count * geometry.macs(part)
    return windows, work / max(windows, 1)
