"""torch's norms with statistics over the valid values; their state dicts are interchangeable with torch's."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nanops.functional.normalization import nan_batch_norm, nan_group_norm, nan_instance_norm, nan_layer_norm
from nanops.modules.sharing import Sharing


class _NanBatchNorm(Sharing, _BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_batch_norm` of x, by the batch's statistics when training or where there are no running ones."""
        self._check_input_dim(input)
        tracks = self.training and self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        mean, var = (self.running_mean, self.running_var) if tracks or not self.training else (None, None)
        training = self.training or (mean is None and var is None)
        return nan_batch_norm(input, mean, var, self.weight, self.bias, training, momentum, self.eps)


class NanBatchNorm1d(_NanBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` of the valid values, (N, C) or (N, C, L)."""

    _torch = nn.BatchNorm1d


class NanBatchNorm2d(_NanBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` of the valid values, (N, C, H, W)."""

    _torch = nn.BatchNorm2d


class NanBatchNorm3d(_NanBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` of the valid values, (N, C, D, H, W)."""

    _torch = nn.BatchNorm3d


class _NanInstanceNorm(Sharing, _InstanceNorm):
    # torch's forward checks the shape and adds the batch axis of a single sample, then calls this.
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        own = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        return nan_instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, own, momentum, self.eps
        )


class NanInstanceNorm1d(_NanInstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` of the valid values, (N, C, L) or (C, L)."""

    _torch = nn.InstanceNorm1d


class NanInstanceNorm2d(_NanInstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` of the valid values, (N, C, H, W) or (C, H, W)."""

    _torch = nn.InstanceNorm2d


class NanInstanceNorm3d(_NanInstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` of the valid values, (N, C, D, H, W) or (C, D, H, W)."""

    _torch = nn.InstanceNorm3d


class NanGroupNorm(Sharing, nn.GroupNorm):
    """`torch.nn.GroupNorm` of the valid values, (N, C, ...)."""

    _torch = nn.GroupNorm

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_group_norm` of x."""
        return nan_group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class NanLayerNorm(Sharing, nn.LayerNorm):
    """`torch.nn.LayerNorm` of the valid values, (..., *normalized_shape)."""

    _torch = nn.LayerNorm

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_layer_norm` of x."""
        return nan_layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
