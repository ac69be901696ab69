"""The operators as pure functions of tensors."""

from nanops.functional.convolution import nan_conv1d, nan_conv2d, nan_conv3d
from nanops.functional.final import finalize
from nanops.functional.normalization import nan_batch_norm, nan_group_norm, nan_instance_norm, nan_layer_norm
from nanops.functional.pooling import (
    aggressive_max_pool1d,
    aggressive_max_pool2d,
    aggressive_max_pool3d,
    hybrid_max_pool1d,
    hybrid_max_pool2d,
    hybrid_max_pool3d,
    multi_max_pool1d,
    multi_max_pool2d,
    multi_max_pool3d,
)
from nanops.functional.reduction import (
    nan_adaptive_avg_pool1d,
    nan_adaptive_avg_pool2d,
    nan_adaptive_avg_pool3d,
    nan_avg_pool1d,
    nan_avg_pool2d,
    nan_avg_pool3d,
)
from nanops.functional.resize import nan_interpolate
from nanops.functional.transposed import nan_conv_transpose1d, nan_conv_transpose2d, nan_conv_transpose3d
from nanops.functional.unpooling import conservative_max_unpool1d, conservative_max_unpool2d, conservative_max_unpool3d

__all__ = [
    "aggressive_max_pool1d", "aggressive_max_pool2d", "aggressive_max_pool3d",
    "conservative_max_unpool1d", "conservative_max_unpool2d", "conservative_max_unpool3d",
    "finalize",
    "hybrid_max_pool1d", "hybrid_max_pool2d", "hybrid_max_pool3d",
    "multi_max_pool1d", "multi_max_pool2d", "multi_max_pool3d",
    "nan_adaptive_avg_pool1d", "nan_adaptive_avg_pool2d", "nan_adaptive_avg_pool3d",
    "nan_avg_pool1d", "nan_avg_pool2d", "nan_avg_pool3d",
    "nan_batch_norm",
    "nan_conv1d", "nan_conv2d", "nan_conv3d",
    "nan_conv_transpose1d", "nan_conv_transpose2d", "nan_conv_transpose3d",
    "nan_group_norm", "nan_instance_norm", "nan_interpolate", "nan_layer_norm",
]  # fmt: skip
