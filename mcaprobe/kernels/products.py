"""Sums of products in a stated order, each multiply-add rounded as the mode says (products.cpp)."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from mcaprobe.kernels.call import FIELDS, Call, expect_plain, library

BLOCK = 16


class _Products(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("input", "weight", "bias", "output", "channel", "tap", "offset")),
        *((name, ctypes.c_int64) for name in ("groups", "rows", "channels", "products", "taps", "segment")),
        ("bias_first", ctypes.c_int64), ("images", ctypes.c_int64),
        *((name, ctypes.c_int64 * 3) for name in ("size", "outputs", "step")),
        ("input_stride", ctypes.c_int64 * 5), ("output_stride", ctypes.c_int64 * 5), *FIELDS,
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """In which order the products of a sum are added.

    Args:
        channel, tap: int32 (products,), input channel within the group and place in the kernel of each product.
        offset: int32 (taps, 3), input position less output position times step.
        segment: Products that are summed from zero and then added to the total; None for one chain.
        bias_first: Whether the chain starts from the bias; else the bias is added at the end.
    """

    channel: Tensor
    tap: Tensor
    offset: Tensor
    segment: int | None = None
    bias_first: bool = False


def sum_products(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, order: Order, step: tuple[int, ...], out: Tensor
) -> None:
    """Write the sums of products into `out`.

    Args:
        x: float32 (images, groups * channels, d, h, w), any strides.
        weight: float32 (groups, rows, products), in the order of the products.
        bias: float32 (groups * rows,), or None.
        step: Input positions from one output to the next, three numbers.
        out: float32 (images, groups * rows, d', h', w'), any strides.
    """
    expect_plain(x, weight, out)
    x, weight = x.detach(), weight.detach()
    groups, rows, products = weight.shape
    if not out.numel():
        return
    packed = _packed(weight)
    job = _Products(input=x.data_ptr(), weight=packed.data_ptr(), output=out.data_ptr())
    if bias is not None:
        expect_plain(bias)
        bias = bias.detach().contiguous()
        job.bias = bias.data_ptr()
    job.channel, job.tap, job.offset = order.channel.data_ptr(), order.tap.data_ptr(), order.offset.data_ptr()
    job.groups, job.rows, job.channels, job.products = groups, rows, x.shape[1] // groups, products
    job.taps, job.segment = len(order.offset), order.segment or max(products, 1)
    job.bias_first, job.images = order.bias_first, x.shape[0]
    job.size[:], job.outputs[:], job.step[:] = x.shape[2:], out.shape[2:], step
    job.input_stride[:], job.output_stride[:] = x.stride(), out.stride()
    call.fill(job)
    if library().mca_products(ctypes.byref(job)):
        raise MemoryError(f"Expected memory for sums of {products} products on {call.threads} threads, got none.")


def _packed(weight: Tensor) -> Tensor:
    """Return the weights as (groups, blocks of 16 rows, products, 16), 0 beyond the rows."""
    groups, rows, products = weight.shape
    blocks = -(-rows // BLOCK)
    padded = torch.nn.functional.pad(weight, (0, 0, 0, blocks * BLOCK - rows))
    return padded.view(groups, blocks, BLOCK, products).transpose(2, 3).contiguous()
