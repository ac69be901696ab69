"""The operators as pure functions of tensors."""

from nanops.functional.convolution import nan_conv1d, nan_conv2d, nan_conv3d

__all__ = ["nan_conv1d", "nan_conv2d", "nan_conv3d"]
