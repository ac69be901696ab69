"""Which kernel does stock torch run, and in which order does that kernel add?"""

from typing import Any

import torch
from torch import Tensor

PANEL = 256  # sgemm cuts the inner dimension into panels, each summed from zero and then added to the result


def backend_of(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> str:
    """Return torch's name of the kernel of a convolution, in lower case."""
    chosen = torch._C._select_conv_backend(
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
    )
    return str(chosen).lower()


def starts_from_bias(backend: str, bias: Tensor | None, transposed: bool) -> bool:
    """Return whether the sums of a convolution start from the bias.

    oneDNN's direct kernel does; torch's own (im2col and sgemm) and transposed ones add it at the end.
    """
    return bias is not None and not transposed and "mkldnn" in backend
