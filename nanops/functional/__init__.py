"""The operators as pure functions of tensors."""

from nanops.functional.convolution import nan_conv1d, nan_conv2d, nan_conv3d
from nanops.functional.transposed import nan_conv_transpose1d, nan_conv_transpose2d, nan_conv_transpose3d

__all__ = [
    "nan_conv1d", "nan_conv2d", "nan_conv3d",
    "nan_conv_transpose1d", "nan_conv_transpose2d", "nan_conv_transpose3d",
]  # fmt: skip
