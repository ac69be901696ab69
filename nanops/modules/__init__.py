"""The operators as modules: the functions' names, with parameters and `from_torch()`."""

from nanops.modules.convolution import (
    NanConv1d,
    NanConv2d,
    NanConv3d,
    NanConvTranspose1d,
    NanConvTranspose2d,
    NanConvTranspose3d,
)

__all__ = ["NanConv1d", "NanConv2d", "NanConv3d", "NanConvTranspose1d", "NanConvTranspose2d", "NanConvTranspose3d"]
