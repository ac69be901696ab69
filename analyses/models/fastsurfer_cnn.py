"""FastSurferCNN, the first version: competitive blocks of 5x5 convolutions at a fixed resolution.

Henschel et al., FastSurfer (NeuroImage 2020). Module names are those of the published checkpoints. Nothing here is
FastSurfer's code; it follows the architecture as the paper and its state dicts describe it.
"""

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

LEVELS = 4
MULTIPLE = 2**LEVELS
KERNEL = 5


class Block(nn.Module):
    """Two 5x5 convolutions and a 1x1 one, each followed by a batch normalisation, with one PReLU."""

    def __init__(self, channels: int, filters: int, input_norm: bool = False) -> None:
        super().__init__()
        if input_norm:
            self.bn0 = nn.BatchNorm2d(channels)
        self.conv0 = nn.Conv2d(channels, filters, KERNEL, padding=KERNEL // 2)
        self.conv1 = nn.Conv2d(filters, filters, KERNEL, padding=KERNEL // 2)
        self.conv2 = nn.Conv2d(filters, filters, 1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(filters) for _ in range(3))
        self.prelu = nn.PReLU()

    def finish(self, x: Tensor) -> Tensor:
        """Return what the second convolution, which competes with its input x, and the third one make of x."""
        x = torch.maximum(self.bn2(self.conv1(self.prelu(x))), x)
        out: Tensor = self.bn3(self.conv2(self.prelu(x)))
        return out


class CompetitiveBlock(Block):
    """A block whose first convolution competes with its input."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x of the same shape."""
        return self.finish(torch.maximum(self.bn1(self.conv0(self.prelu(x))), x))


class EncoderInput(Block):
    """The first encoder: the input is normalised, and competes with nothing."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(channels, filters, input_norm=True)
        self.maxpool = nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pooled output, the output itself (the skip connection), and the pooling indices."""
        skip = self.finish(self.bn1(self.conv0(self.bn0(x))))
        pooled, indices = self.maxpool(skip)
        return pooled, skip, indices


class Encoder(CompetitiveBlock):
    """A block, then a pooling that keeps its indices."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters)
        self.maxpool = nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Return the pooled output, the output itself (the skip connection), and the pooling indices."""
        skip = super().forward(x)
        pooled, indices = self.maxpool(skip)
        return pooled, skip, indices


class Decoder(CompetitiveBlock):
    """Unpool with the encoder's indices, compete with the skip connection, then a block."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x: Tensor, skip: Tensor, indices: Tensor) -> Tensor:  # type: ignore[override]
        """Return (N, filters, H, W) of x (N, filters, H/2, W/2) and a skip connection (N, filters, H, W)."""
        return super().forward(torch.maximum(self.unpool(x, indices), skip))


class Classifier(nn.Module):
    """A 1x1 convolution to the classes."""

    def __init__(self, filters: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(filters, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, H, W)."""
        out: Tensor = self.conv(x)
        return out


class FastSurferCNN(nn.Module):
    """Segment the middle one of several adjacent slices.

    Args:
        slices: Adjacent slices that come in as channels (7 in the paper).
        filters: Width of every block (64 in the paper).
        classes: Output classes (79 axial and coronal, 51 sagittal in the paper).
    """

    def __init__(self, slices: int = 7, filters: int = 64, classes: int = 79) -> None:
        super().__init__()
        self.slices = slices
        self.encode1 = EncoderInput(slices, filters)
        self.encode2, self.encode3, self.encode4 = (Encoder(filters) for _ in range(3))
        self.bottleneck = CompetitiveBlock(filters)
        self.decode4, self.decode3, self.decode2, self.decode1 = (Decoder(filters) for _ in range(4))
        self.classifier = Classifier(filters, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the middle slice, (N, classes, H, W).

        Args:
            x: Slices as channels, (N, slices, H, W).
        Raises:
            InputError: x has another number of slices, or its height or width is no multiple of 16.
        """
        if x.ndim != 4 or x.shape[1] != self.slices or x.shape[2] % MULTIPLE or x.shape[3] % MULTIPLE:
            raise InputError(
                f"Expected x of shape (N, {self.slices}, H, W) with multiples of {MULTIPLE}, got {tuple(x.shape)}."
            )
        x1, skip1, indices1 = self.encode1(x)
        x2, skip2, indices2 = self.encode2(x1)
        x3, skip3, indices3 = self.encode3(x2)
        x4, skip4, indices4 = self.encode4(x3)
        y = self.decode4(self.bottleneck(x4), skip4, indices4)
        y = self.decode3(y, skip3, indices3)
        y = self.decode2(y, skip2, indices2)
        logits: Tensor = self.classifier(self.decode1(y, skip1, indices1))
        return logits
