"""torch's convolutions that skip windows of NaN; their state dicts are interchangeable with torch's."""

from typing import Any, Self

from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nanops import functional as F
from nanops.modules.sharing import Sharing
from nanops.rule import Rule


class _Options(Sharing, _ConvNd):
    """What a NaN convolution knows besides torch's own settings; none of it is in the state dict.

    Args:
        args, settings: Those of torch's module.
        threshold, fill, sigma, generator, count_padding, uniform: As in `nan_conv2d`.
    Raises:
        InputError: options that make no sense.
    """

    _operator: Any

    def __init__(
        self, *args: Any, threshold: float = 0.5, fill: str = "mean", sigma: float = 1e-3,
        generator: Generator | None = None, count_padding: bool = True, uniform: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        rule = Rule(threshold, fill, sigma, count_padding, uniform)
        super().__init__(*args, **settings)
        self._choose(rule, generator)

    def _choose(self, rule: Rule, generator: Generator | None) -> None:
        self.threshold, self.fill, self.sigma = rule.threshold, rule.fill, rule.sigma
        self.count_padding, self.uniform, self.generator = rule.count_padding, rule.uniform, generator

    @classmethod
    def from_torch(
        cls, module: nn.Module, *, threshold: float = 0.5, fill: str = "mean", sigma: float = 1e-3,
        generator: Generator | None = None, count_padding: bool = True, uniform: bool = False,
    ) -> Self:  # fmt: skip
        """Return one with the settings, the training flag and the very parameters of torch's module.

        Raises:
            ConversionError: another module.
            InputError: options that make no sense.
        """
        rule = Rule(threshold, fill, sigma, count_padding, uniform)
        ours = super().from_torch(module)
        vars(ours)["_reversed_padding_repeated_twice"] = vars(module)["_reversed_padding_repeated_twice"]
        ours._choose(rule, generator)
        return ours

    def extra_repr(self) -> str:
        """Return torch's own, the threshold and the fill, and what differs from the defaults."""
        shown = f"{super().extra_repr()}, threshold={self.threshold:g}, fill={self.fill!r}"
        if self.fill == "max_normal":
            shown += f", sigma={self.sigma:g}"
        if not self.count_padding:
            shown += ", count_padding=False"
        return shown + (", uniform=True" if self.uniform else "")

    def _options(self) -> dict[str, Any]:
        names = ("threshold", "fill", "sigma", "generator", "count_padding", "uniform")
        return {name: getattr(self, name) for name in names}


class _NanConv(_Options):
    def _padded(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the image with other padding than zeros, and the zeros that are still to come.

        Reflected, replicated and circular padding is image: a NaN that it repeats counts as one, whatever
        `count_padding`.
        """
        if self.padding_mode == "zeros":
            return x, self.padding
        return nn.functional.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0

    def forward(self, input: Tensor) -> Tensor:
        """Return the NaN convolution of x, (N, C, *size) or (C, *size)."""
        x, padding = self._padded(input)
        steps = self.stride, padding, self.dilation, self.groups
        return self._operator(x, self.weight, self.bias, *steps, **self._options())


class _NanConvTranspose(_Options):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed NaN convolution of x, (N, C, *size) or (C, *size), of one of its possible sizes."""
        own, dims = (self.stride, self.padding, self.kernel_size), len(self.kernel_size)
        more = self._output_padding(input, output_size, *own, dims, self.dilation)  # type: ignore[operator]
        steps = self.stride, self.padding, tuple(more), self.groups, self.dilation
        return self._operator(input, self.weight, self.bias, *steps, **self._options())


class NanConv1d(_NanConv, nn.Conv1d):
    """`torch.nn.Conv1d` that skips windows of NaN: `nan_conv1d`."""

    _torch, _operator = nn.Conv1d, staticmethod(F.nan_conv1d)


class NanConv2d(_NanConv, nn.Conv2d):
    """`torch.nn.Conv2d` that skips windows of NaN: `nan_conv2d`."""

    _torch, _operator = nn.Conv2d, staticmethod(F.nan_conv2d)


class NanConv3d(_NanConv, nn.Conv3d):
    """`torch.nn.Conv3d` that skips windows of NaN: `nan_conv3d`."""

    _torch, _operator = nn.Conv3d, staticmethod(F.nan_conv3d)


class NanConvTranspose1d(_NanConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` that skips windows of NaN: `nan_conv_transpose1d`."""

    _torch, _operator = nn.ConvTranspose1d, staticmethod(F.nan_conv_transpose1d)


class NanConvTranspose2d(_NanConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` that skips windows of NaN: `nan_conv_transpose2d`."""

    _torch, _operator = nn.ConvTranspose2d, staticmethod(F.nan_conv_transpose2d)


class NanConvTranspose3d(_NanConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` that skips windows of NaN: `nan_conv_transpose3d`."""

    _torch, _operator = nn.ConvTranspose3d, staticmethod(F.nan_conv_transpose3d)
