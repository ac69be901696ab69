"""The operators as modules: the functions' names, with parameters and `from_torch()`."""

from nanops.modules.convolution import (
    NanConv1d,
    NanConv2d,
    NanConv3d,
    NanConvTranspose1d,
    NanConvTranspose2d,
    NanConvTranspose3d,
)
from nanops.modules.final import Finalize
from nanops.modules.normalization import (
    NanBatchNorm1d,
    NanBatchNorm2d,
    NanBatchNorm3d,
    NanGroupNorm,
    NanInstanceNorm1d,
    NanInstanceNorm2d,
    NanInstanceNorm3d,
    NanLayerNorm,
)
from nanops.modules.pooling import (
    AggressiveMaxPool1d,
    AggressiveMaxPool2d,
    AggressiveMaxPool3d,
    HybridMaxPool1d,
    HybridMaxPool2d,
    HybridMaxPool3d,
    MultiMaxPool1d,
    MultiMaxPool2d,
    MultiMaxPool3d,
)
from nanops.modules.reduction import NanAdaptiveAvgPool1d, NanAdaptiveAvgPool2d, NanAdaptiveAvgPool3d
from nanops.modules.resize import NanUpsample
from nanops.modules.unpooling import ConservativeMaxUnpool1d, ConservativeMaxUnpool2d, ConservativeMaxUnpool3d

__all__ = [
    "AggressiveMaxPool1d", "AggressiveMaxPool2d", "AggressiveMaxPool3d",
    "ConservativeMaxUnpool1d", "ConservativeMaxUnpool2d", "ConservativeMaxUnpool3d",
    "Finalize",
    "HybridMaxPool1d", "HybridMaxPool2d", "HybridMaxPool3d",
    "MultiMaxPool1d", "MultiMaxPool2d", "MultiMaxPool3d",
    "NanAdaptiveAvgPool1d", "NanAdaptiveAvgPool2d", "NanAdaptiveAvgPool3d",
    "NanBatchNorm1d", "NanBatchNorm2d", "NanBatchNorm3d",
    "NanConv1d", "NanConv2d", "NanConv3d", "NanConvTranspose1d", "NanConvTranspose2d", "NanConvTranspose3d",
    "NanGroupNorm",
    "NanInstanceNorm1d", "NanInstanceNorm2d", "NanInstanceNorm3d",
    "NanLayerNorm", "NanUpsample",
]  # fmt: skip
