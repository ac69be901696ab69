"""Which kernel runs a NaN convolution? The stock one where nothing is NaN, the compiled one, or torch operations."""

import warnings
from functools import cache
from math import prod

import torch
from torch import Tensor

from nanops import kernels, ledger
from nanops.functional import convolution_torch
from nanops.functional.geometry import Geometry, Part
from nanops.functional.layout import memory_format
from nanops.kernels import depthwise
from nanops.kernels.convolution import Job, any_nan, serves, worthwhile
from nanops.rule import Rule

_NOTHING = torch.empty(0, dtype=torch.bool)
Done = tuple[Part, Tensor, Tensor, Job | None]  # a part, its result, where it skipped, and the kernel's call


def run(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rule: Rule, key: tuple[int, int],
    masked: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the result, (N, O, *out), and where windows were skipped, boolean (N, groups, *out).

    Gradients pass where nothing is NaN and `uniform` is off: there it is torch's own call.

    Args:
        x: (N, C, *size).
        key: Of the draws of approach B.
        masked: Whether the mask is asked for; if not, and nobody listens, it is empty.
    """
    masked = masked or ledger.listening()
    out, known = geometry.out(x, weight), rule.uniform and serves(x)
    if x.numel() == 0 or not (known or any_nan(x)):
        return _stock(x, weight, bias, geometry, out, masked)
    if not serves(x):
        if x.device.type == "cpu" and kernels.library() is None:
            _announce()
        y, skipped, done = in_torch(x, weight, bias, geometry, rule, key)
        note(geometry, out, skipped, done, "torch")
        return y.contiguous(memory_format=memory_format(x, weight)), skipped
    # Kernels read memory as it is: no bit may say that its numbers are to be negated.
    x32 = x.detach().resolve_neg().movedim(1, -1).to(torch.float32).contiguous().movedim(-1, 1)  # once for all parts
    weight, bias = weight.detach().resolve_neg(), None if bias is None else bias.detach().resolve_neg()
    parts = list(geometry.parts(x32, weight))
    if depthwise.serves(parts[0].weight, x.shape[1], geometry.groups, rule):
        done = [
            (p, *_bias_only(x, bias, geometry, weight), None) if p.windows is None
            else (p, *depthwise.depthwise(x32, p.weight, bias, p.windows, rule), None)
            for p in parts
        ]  # fmt: skip
        return _compiled(x, weight, geometry, out, done, masked)
    jobs = [
        None if p.windows is None else Job(x32, p.weight, p.windows, geometry.groups, rule, phase_key(key, p))
        for p in parts
    ]
    found = [job.found for job in jobs if job is not None]
    if found and not worthwhile(found, x.shape[0] * geometry.groups * prod(out)):
        return _stock(x, weight, bias, geometry, out, masked)
    done = [
        (p, *_bias_only(x, bias, geometry, weight), None) if job is None
        else (p, job.convolve(bias, x.dtype), job.skipped if masked else _NOTHING, job)
        for p, job in zip(parts, jobs, strict=True)
    ]  # fmt: skip
    return _compiled(x, weight, geometry, out, done, masked)


def _compiled(
    x: Tensor, weight: Tensor, geometry: Geometry, out: tuple[int, ...], done: list[Done], masked: bool
) -> tuple[Tensor, Tensor]:
    y, skipped = _assemble(x, weight, geometry, done, masked)
    note(geometry, out, skipped, done, "compiled")
    return y.to(x.dtype).contiguous(memory_format=memory_format(x, weight)), skipped


def in_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, rule: Rule, key: tuple[int, int],
    sums: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, list[Done]]:  # fmt: skip
    """Return result and mask in torch operations, through which gradients pass; and the parts they consist of."""
    done: list[Done] = []
    for p in geometry.parts(x, weight):
        if p.windows is None:
            done.append((p, *_bias_only(x, bias, geometry, weight), None))
            continue
        route = convolution_torch.convolve
        done.append((p, *route(x, p.weight, bias, p.windows, geometry.groups, rule, phase_key(key, p), sums), None))
    return *_assemble(x, weight, geometry, done), done


def phase_key(key: tuple[int, int], part: Part) -> tuple[int, int]:
    """Return the key of the draws of one part, that of the call for the first."""
    return key[0], key[1] ^ part.number


def _stock(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, out: tuple[int, ...], masked: bool
) -> tuple[Tensor, Tensor]:
    y = geometry.stock(x, weight, bias)
    if not masked:
        return y, _NOTHING
    skipped = torch.zeros((x.shape[0], geometry.groups, *out), dtype=torch.bool, device=x.device)
    if ledger.listening():
        done: list[Done] = [(p, y, skipped[p.where], None) for p in geometry.parts(x, weight)]
        note(geometry, out, skipped, done, "stock")
    return y, skipped


def _bias_only(x: Tensor, bias: Tensor | None, geometry: Geometry, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return what outputs are that nothing reaches, and that they are not skipped; each with one entry a position."""
    ones = (1,) * (x.ndim - 2)
    y = x.new_zeros((1, geometry.outputs(weight), *ones)) if bias is None else bias.reshape(1, -1, *ones)
    return y, torch.zeros((1, 1, *ones), dtype=torch.bool, device=x.device)


def _assemble(
    x: Tensor, weight: Tensor, geometry: Geometry, done: list[Done], masked: bool = True
) -> tuple[Tensor, Tensor]:
    if not geometry.transposed:
        return done[0][1], done[0][2]
    out = geometry.out(x, weight)
    y = done[0][1].new_empty((x.shape[0], geometry.outputs(weight), *out))
    skipped = torch.empty((x.shape[0], geometry.groups, *out), dtype=torch.bool, device=x.device)
    for part, result, where, _ in done:
        y[part.where] = result
        if masked:
            skipped[part.where] = where
    return y, skipped


def note(geometry: Geometry, out: tuple[int, ...], skipped: Tensor, done: list[Done], route: str) -> None:
    """Tell who counts what a call skipped, from the parts it consists of."""
    if not ledger.listening():
        return
    each = skipped.flatten(1).sum(1).cpu()
    uniform, executed, spared = torch.zeros_like(each), torch.zeros_like(each), torch.zeros_like(each)
    windows = dense = 0
    for part, _, where, job in done:
        if part.windows is None:
            continue
        macs, count = geometry.macs(part), prod(part.windows.counts) * geometry.groups
        gone = where.flatten(1).sum(1).cpu()
        same = torch.zeros_like(each) if job is None else job.uniform.flatten(1).sum(1)
        windows, dense, spared, uniform = windows + count, dense + count * macs, spared + gone * macs, uniform + same
        executed += (count - gone - same) * macs if route == "compiled" else count * macs
    macs_each = dense / windows if geometry.transposed and windows else dense // max(windows, 1)
    ledger.note(ledger.Call(geometry.name, windows, each, uniform, macs_each, executed, route, spared))


@cache
def _announce() -> None:
    reason = kernels.absence()
    warnings.warn(f"NaN convolutions run in torch operations, which are exact but slow: {reason}.", stacklevel=2)
