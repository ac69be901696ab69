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
from nanops.modules.sharing import Sharing


class _NanAdaptiveAvgPool(Sharing, _AdaptiveAvgPoolNd):
    _operator: Any
    policy: str

    def __init__(self, output_size: Any, *, policy: str = "zero") -> None:
        expect_choice("policy", policy, POLICIES)
        super().__init__(output_size)
        self.policy = policy

    @classmethod
    def from_torch(cls, module: nn.Module, *, policy: str = "zero") -> Self:
        """Return one with the settings of torch's module.

        Raises:
            ConversionError: another module.
            InputError: another policy.
        """
        expect_choice("policy", policy, POLICIES)
        ours = super().from_torch(module)
        ours.policy = policy
        return ours

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of the regions of x."""
        return self._operator(input, self.output_size, policy=self.policy)

    def extra_repr(self) -> str:
        """Return torch's own and the policy."""
        return f"{super().extra_repr()}, policy={self.policy!r}"


class NanAdaptiveAvgPool1d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool1d):
    """`torch.nn.AdaptiveAvgPool1d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    _torch, _operator = nn.AdaptiveAvgPool1d, staticmethod(nan_adaptive_avg_pool1d)


class NanAdaptiveAvgPool2d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    _torch, _operator = nn.AdaptiveAvgPool2d, staticmethod(nan_adaptive_avg_pool2d)


class NanAdaptiveAvgPool3d(_NanAdaptiveAvgPool, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d` with a policy for NaN: "zero" or "mean" (of the valid values)."""

    _torch, _operator = nn.AdaptiveAvgPool3d, staticmethod(nan_adaptive_avg_pool3d)
