"""Elementwise arithmetic, each result rounded once as the mode says (elementwise.cpp)."""

import ctypes

import torch
from torch import Tensor

from mcaprobe.kernels.call import FIELDS, Call, expect_plain, library

_NAMES = ("add", "subtract", "multiply", "divide", "multiply_add", "sqrt", "leaky", "round", "noise")
OPERATIONS = {name: code for code, name in enumerate(_NAMES)}


class _Operand(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 3), ("wide", ctypes.c_int64)]


class _Sweep(ctypes.Structure):
    _fields_ = [("operand", _Operand * 3), ("output", ctypes.c_void_p), ("size", ctypes.c_int64 * 3),
                ("operation", ctypes.c_int64), ("operands", ctypes.c_int64), *FIELDS]  # fmt: skip


def elementwise(call: Call, operation: str, *operands: Tensor) -> Tensor:
    """Return the float32 result, contiguous, of the shape that the operands broadcast to.

    Args:
        operation: A name of OPERATIONS; `multiply_add` is a b + c, `leaky` is a where that is positive, else a b,
            `round` narrows float64, `noise` is operand 0 plus a normal number times operand 1, then rounded.
        operands: float32; of `round` and `noise` float32 or float64.
    """
    expect_plain(*operands, double=operation in ("round", "noise"))
    operands = torch.broadcast_tensors(*(t.detach() for t in operands)) if len(operands) > 1 else operands
    out = torch.empty(operands[0].shape, dtype=torch.float32)
    if not out.numel():
        return out
    size, strides, kept = _collapse(list(operands))
    sweep = _Sweep(output=out.data_ptr(), operation=OPERATIONS[operation], operands=len(operands))
    sweep.size[:] = size
    for target, tensor, stride in zip(sweep.operand, kept, strides, strict=False):
        target.data, target.wide = tensor.data_ptr(), tensor.dtype == torch.float64
        target.stride[:] = stride
    call.fill(sweep)
    library().mca_elementwise(ctypes.byref(sweep))
    return out


def _collapse(tensors: list[Tensor]) -> tuple[list[int], list[list[int]], list[Tensor]]:
    """Return three sizes, the strides of each tensor over them, and the tensors, copied where three do not do."""
    shape = tensors[0].shape
    if all(t.is_contiguous() for t in tensors):
        return [1, 1, shape.numel()], [[0, 0, 1] for _ in tensors], tensors
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in tensors]
    for d, n in enumerate(shape):
        if n == 1:
            continue
        steps = [t.stride(d) for t in tensors]
        if sizes and all(s[-1] == step * n for s, step in zip(strides, steps, strict=True)):
            sizes[-1] *= n
            for s, step in zip(strides, steps, strict=True):
                s[-1] = step
        else:
            sizes.append(n)
            for s, step in zip(strides, steps, strict=True):
                s.append(step)
    if len(sizes) > 3:
        return _collapse([t.contiguous() for t in tensors])
    padding = 3 - len(sizes)
    return [1] * padding + sizes, [[0] * padding + s for s in strides], tensors
