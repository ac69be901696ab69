"""FastSurferCNN, the first version: competitive blocks of 5x5 convolutions at a fixed resolution.

Henschel et al., FastSurfer (NeuroImage 2020). Module names are those of the published checkpoints. Nothing here is
FastSurfer's code; it follows the architecture as the paper and its state dicts describe it.
"""

import torch
from torch import Tensor, nn

from analyses.models.fastsurfer import MULTIPLE, ClassifierBlock, Decoding, Encoding, down_and_up, initialise
from mcaprobe.errors import InputError

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


class InputBlock(Block):
    """A block whose input is normalised, and competes with nothing."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(channels, filters, input_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x (N, channels, H, W)."""
        return self.finish(self.bn1(self.conv0(self.bn0(x))))


class CompetitiveBlock(Block):
    """A block whose first convolution competes with its input."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x of the same shape."""
        return self.finish(torch.maximum(self.bn1(self.conv0(self.prelu(x))), x))


class EncoderInput(Encoding, InputBlock):  # type: ignore[misc]
    """The first encoder."""


class Encoder(Encoding, CompetitiveBlock):  # type: ignore[misc]
    """A block, then a pooling."""


class Decoder(Decoding, CompetitiveBlock):  # type: ignore[misc]
    """Unpool, compete with the skip connection, then a block."""


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
        self.classifier = ClassifierBlock(filters, classes)
        initialise(self)

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
        logits: Tensor = self.classifier(down_and_up(self, x))
        return logits
