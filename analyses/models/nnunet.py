"""The plain convolutional U-Net of nnU-Net (Isensee et al. 2021), and a twin of it that pools and unpools.

Nothing here is nnU-Net's code. Convolutions have a bias, transposed ones and the classifier have none; there is one
classifier, since the others of deep supervision serve training only. nnU-Net neither pools nor unpools, so no NaN
arises in it; the twin is its nearest relative in which conservative and aggressive NaNs do.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

Size = int | Sequence[int]
FEATURES = (32, 64, 128, 256, 320, 320)
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
UNPOOL = {2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}
SLOPE = 0.01


class Unit(nn.Module):
    """A convolution of width 3, instance or batch normalisation, leaky ReLU."""

    def __init__(
        self, dims: int, channels: int, features: int, stride: tuple[int, ...], norm: str = "instance"
    ) -> None:
        super().__init__()
        self.conv = CONV[dims](channels, features, 3, stride, padding=1)  # type: ignore[arg-type]
        self.norm = (NORM if norm == "instance" else BATCH_NORM)[dims](features, eps=1e-5, affine=True)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, features, *size / stride)."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class Stage(nn.Sequential):
    """Several units, of which the first one has the stride."""

    def __init__(
        self, dims: int, channels: int, features: int, convolutions: int, stride: tuple[int, ...], norm: str
    ) -> None:
        one = (1,) * dims
        rest = (Unit(dims, features, features, one, norm) for _ in range(convolutions - 1))
        super().__init__(Unit(dims, channels, features, stride, norm), *rest)


class Unpooling(nn.Module):
    """The way up where there was a pooling: its indices, behind a 1x1 convolution to its number of channels."""

    def __init__(self, dims: int, channels: int, features: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        # The indices are one a channel of the pooling, so what is unpooled needs as many channels.
        self.conv = nn.Identity() if channels == features else CONV[dims](channels, features, 1, bias=False)
        self.unpool = UNPOOL[dims](stride, stride)  # type: ignore[arg-type]

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Return (N, features, *size * stride)."""
        out: Tensor = self.unpool(self.conv(x), indices)
        return out


class PlainUNet(nn.Module):
    """Segment an image.

    Args:
        dims: 2 or 3.
        channels: Of the input.
        classes: Of the output.
        features: Width of each stage, from the input's resolution down.
        strides: Of each stage against the one above, a number or one an axis; the first is 1. By default 1, then 2.
        convolutions: Of each stage, down and up.
        downsampling: "stride", nnU-Net's own: the first convolution of a stage has the stride, and transposed
            convolutions lead up. "pool": all convolutions have stride 1, max-pools lead down and, with their indices,
            unpools lead up, behind a 1x1 convolution without bias where the numbers of channels differ.
        norm: "instance", nnU-Net's own, or "batch", whose statistics do not depend on what is NaN in an image.

    Raises:
        InputError: one of these makes no sense.
    """

    def __init__(
        self,
        dims: int = 3,
        channels: int = 1,
        classes: int = 2,
        features: Sequence[int] = FEATURES,
        strides: Sequence[Size] | None = None,
        convolutions: int = 2,
        downsampling: str = "stride",
        norm: str = "instance",
    ) -> None:
        super().__init__()
        if dims not in CONV:
            raise InputError(f"Expected 2 or 3 dims, got {dims}.")
        if downsampling not in ("stride", "pool"):
            raise InputError(f'Expected downsampling "stride" or "pool", got {downsampling!r}.')
        if norm not in ("instance", "batch"):
            raise InputError(f'Expected norm "instance" or "batch", got {norm!r}.')
        if not features or convolutions < 1:
            raise InputError(f"Expected a stage and a convolution or more, got {len(features)} and {convolutions}.")
        steps = steps_of(dims, strides if strides is not None else (1, *(2,) * (len(features) - 1)))
        if len(steps) != len(features) or steps[0] != (1,) * dims:
            raise InputError(f"Expected {len(features)} strides, the first of them 1, got {strides}.")
        self.dims, self.channels, self.pooled = dims, channels, downsampling == "pool"
        self.multiple = tuple(prod(axis) for axis in zip(*steps, strict=True))
        inputs = (channels, *features)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()  # between a stage and the one below
        for i, step in enumerate(steps):
            stride = steps[0] if self.pooled else step
            self.encoder.append(Stage(dims, inputs[i], features[i], convolutions, stride, norm))
        for wide, narrow, step in zip(features[1:], features, steps[1:], strict=False):
            if self.pooled:
                self.down.append(POOL[dims](step, step, return_indices=True))  # type: ignore[arg-type]
                self.up.append(Unpooling(dims, wide, narrow, step))
            else:
                self.up.append(TRANSPOSED[dims](wide, narrow, step, step, bias=False))  # type: ignore[arg-type]
            self.decoder.append(Stage(dims, 2 * narrow, narrow, convolutions, steps[0], norm))
        self.classifier = CONV[dims](features[0], classes, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming initialisation for the leaky ReLU, biases 0; normalisations start as identity."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, *size) of x (N, channels, *size).

        Raises:
            InputError: x has another shape, or a size that is no multiple of the product of the strides.
        """
        self.check(x)
        return self.classifier(self.decoded(x)[0])

    def check(self, x: Tensor) -> None:
        """Raise where x is no input of the network.

        Raises:
            InputError: as `forward`.
        """
        axes = ", ".join("DHW"[-self.dims :])
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels:
            raise InputError(f"Expected x of shape (N, {self.channels}, {axes}), got {tuple(x.shape)}.")
        if any(n == 0 or n % m for n, m in zip(x.shape[2:], self.multiple, strict=True)):
            multiples = " x ".join(str(m) for m in self.multiple)
            raise InputError(f"Expected a size {axes} of multiples of {multiples}, got {tuple(x.shape[2:])}.")

    def decoded(self, x: Tensor) -> list[Tensor]:
        """Return what each stage of the way up makes of x, from the resolution of the input down."""
        skips: list[Tensor] = []
        places: list[tuple[Tensor, ...]] = []
        for i, stage in enumerate(self.encoder):
            if i:
                skips.append(x)
                if self.pooled:
                    x, indices = self.down[i - 1](x)
                    places.append((indices,))
                else:
                    places.append(())
            x = stage(x)
        stages = [x]
        for i in reversed(range(len(skips))):
            x = self.decoder[i](torch.cat([self.up[i](x, *places[i]), skips[i]], dim=1))
            stages.insert(0, x)
        return stages


class HeadedUNet(PlainUNet):
    """A `PlainUNet` with a head at each stage of the way up, as nnU-Net has them; it returns the logits of all.

    Args:
        options: As of `PlainUNet`.
    """

    def __init__(
        self, dims: int, channels: int, classes: int, features: Sequence[int] = FEATURES, **options: Any
    ) -> None:
        super().__init__(dims, channels, classes, features, **options)
        self.heads = nn.ModuleList(CONV[dims](width, classes, 1, bias=False) for width in features[1:-1])

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return logits (N, classes, *size) of each stage, from the resolution of the input down.

        Raises:
            InputError: as `PlainUNet`.
        """
        self.check(x)
        stages = self.decoded(x)
        return [head(stage) for head, stage in zip([self.classifier, *self.heads], stages, strict=False)]


def steps_of(dims: int, strides: Sequence[Size]) -> list[tuple[int, ...]]:
    """Return each stride as one number an axis.

    Raises:
        InputError: one has another number of axes, or a number below 1.
    """
    steps = [(s,) * dims if isinstance(s, int) else tuple(s) for s in strides]
    if any(len(s) != dims or min(s) < 1 for s in steps):
        raise InputError(f"Expected strides of 1 or more, one or {dims} a stage, got {tuple(strides)}.")
    return steps
