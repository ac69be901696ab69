"""Sums and dot products, each addition rounded as the mode says (reductions.cpp)."""

import ctypes

import torch
from torch import Tensor

from mcaprobe.kernels.call import FIELDS, Call, expect_plain, library

ORDERS = {"inner": 0, "outer": 1, "dot": 2, "vector": 3, "sequence": 4}


class _Reduction(ctypes.Structure):
    _fields_ = [("input", ctypes.c_void_p), ("factor", ctypes.c_void_p), ("output", ctypes.c_void_p),
                ("outer", ctypes.c_int64), ("count", ctypes.c_int64), ("inner", ctypes.c_int64),
                ("stride", ctypes.c_int64 * 3), ("factor_stride", ctypes.c_int64 * 2),
                ("order", ctypes.c_int64), *FIELDS]  # fmt: skip


def reduce(call: Call, order: str, x: Tensor, factor: Tensor | None = None) -> Tensor:
    """Return the sums over the middle dimension of x, float32 (outer, count, inner), as (outer, inner).

    Args:
        order: `inner`, `dot` and `vector` expect inner = 1: torch's sum of a contiguous dimension, a dot product with
            the factor, one vector of eight partial sums added up in pairs. `outer`: torch's sum over another
            dimension. `sequence`: one after the other.
        factor: (outer, count), for `dot`; outer may be expanded.
    """
    expect_plain(x)
    x = x.detach()
    if order in ("inner", "dot", "vector") and (x.shape[2] != 1 or (x.stride(1) != 1 and x.shape[1] > 1)):
        x = x.contiguous()
    outer, count, inner = x.shape
    out = torch.empty(outer, inner, dtype=torch.float32)
    job = _Reduction(input=x.data_ptr(), output=out.data_ptr(), outer=outer, count=count, inner=inner)
    job.stride[:] = x.stride()
    job.order = ORDERS[order]
    if factor is not None:
        expect_plain(factor)
        factor = factor.detach()
        if factor.stride(1) != 1 and count > 1:
            factor = factor.contiguous()
        job.factor = factor.data_ptr()
        job.factor_stride[:] = factor.stride()
    call.fill(job)
    library().mca_reduce(ctypes.byref(job))
    return out
