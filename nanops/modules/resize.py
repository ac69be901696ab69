"""torch's Upsample by the weights of the valid neighbours."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from nanops.errors import ConversionError, InputError, expect_choice, expect_threshold
from nanops.functional.resize import AXES, nan_interpolate
from nanops.modules.sharing import share


class NanUpsample(nn.Upsample):
    """`torch.nn.Upsample` with the weights of NaN left out, (N, C, ...); modes and threshold as `nan_interpolate`.

    Raises:
        InputError: a mode with negative weights, or a threshold that is not in (0, 1].
    """

    threshold: float

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        *,
        threshold: float = 0.5,
    ) -> None:
        expect_choice("mode", mode, AXES)
        expect_threshold(threshold)
        options: dict[str, Any] = {"size": size, "scale_factor": scale_factor}
        super().__init__(
            **options, mode=mode, align_corners=align_corners, recompute_scale_factor=recompute_scale_factor
        )
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """Return `nan_interpolate` of x."""
        return nan_interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor,
            threshold=self.threshold,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return torch's own and the threshold."""
        return f"{super().extra_repr()}, threshold={self.threshold}"

    @classmethod
    def from_torch(cls, module: nn.Module, *, threshold: float = 0.5) -> Self:
        """Return one with the settings of a `torch.nn.Upsample` or its two shorthands.

        Raises:
            ConversionError: a mode with negative weights.
        """
        expect_threshold(threshold)
        ours = share(cls, module, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)
        try:
            expect_choice("mode", ours.mode, AXES)
        except InputError as error:
            raise ConversionError(str(error)) from None
        ours.name = cls.__name__
        ours.threshold = threshold
        return ours
