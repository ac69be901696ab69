"""torch's average pools for regions with NaN."""

from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd

from nanops.errors import expect_choice
from nanops.functional.reduction import (
    POLICIES,
    nan_adaptive_avg_pool1d,
    nan_adaptive_avg_pool2d,
    nan_adaptive_avg_pool3d,
)
from nanops.modules.sharing import share


class _NanAdaptiveAvgPool(_AdaptiveAvgPoolNd):
    policy: str

    def __init__(self, output_size: Any, *, policy: str = "zero") -> None:
        expect_choice("policy", policy, POLICIES)
        super().__init__(output_size)
        self.policy = policy

    def extra_repr(self) -> str:
        """Return torch's own and the policy."""
        return f"{super().extra_repr()}, policy={self.policy!r}"

    @classmethod
    def _sharing(cls, module: nn.Module, policy: str, torch_kind: type[nn.Module]) -> Self:
        expect_choice("policy", policy, POLICIES)
        ours = share(cls, module, torch_kind)
        ours.policy = policy
        return ours


class NanAdaptiveAvgPool1d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_adaptive_avg_pool1d` of x."""
        return nan_adaptive_avg_pool1d(input, self.output_size, policy=self.policy)

    @classmethod
    def from_torch(cls, module: nn.Module, *, policy: str = "zero") -> Self:
        """Return one with the settings of a `torch.nn.AdaptiveAvgPool1d`."""
        return cls._sharing(module, policy, nn.AdaptiveAvgPool1d)


class NanAdaptiveAvgPool2d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_adaptive_avg_pool2d` of x."""
        return nan_adaptive_avg_pool2d(input, self.output_size, policy=self.policy)

    @classmethod
    def from_torch(cls, module: nn.Module, *, policy: str = "zero") -> Self:
        """Return one with the settings of a `torch.nn.AdaptiveAvgPool2d`."""
        return cls._sharing(module, policy, nn.AdaptiveAvgPool2d)


class NanAdaptiveAvgPool3d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_adaptive_avg_pool3d` of x."""
        return nan_adaptive_avg_pool3d(input, self.output_size, policy=self.policy)

    @classmethod
    def from_torch(cls, module: nn.Module, *, policy: str = "zero") -> Self:
        """Return one with the settings of a `torch.nn.AdaptiveAvgPool3d`."""
        return cls._sharing(module, policy, nn.AdaptiveAvgPool3d)
