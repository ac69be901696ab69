"""The noise of one run of products, added up in one sweep (accumulation.cpp)."""

import ctypes

from torch import Tensor

from mcaprobe import kernels
from mcaprobe.kernels.call import expect_plain, library


def follows(*tensors: Tensor) -> bool:
    """Return whether there is a compiled sweep for these tensors."""
    plain = all(t.device.type == "cpu" and str(t.dtype) == "torch.float32" for t in tensors)
    return plain and kernels.library() is not None


def follow_run(total: Tensor, squares: Tensor, terms: Tensor, partial: Tensor, summed: Tensor) -> None:
    """Add a run to `partial` and `summed`, in place; all float32 of one shape, these two contiguous."""
    expect_plain(total, squares, terms, partial, summed)
    inputs = [t.contiguous() for t in (total, squares, terms)]
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*inputs, partial, summed)]
    library().mca_follow_run(ctypes.c_int64(partial.numel()), *pointers)
