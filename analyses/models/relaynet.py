"""ReLayNet (Roy et al. 2017, arXiv 1704.02161), as its published parameters describe it: pool indices and unpooling.

Segments ten classes of a retinal OCT image; 64 filters of 3 x 7, three levels.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Convolution, batch norm, PReLU."""

    def __init__(self, channels: int, filters: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, (3, 7), padding=(1, 3))
        self.batchnorm = nn.BatchNorm2d(filters)
        self.prelu = nn.PReLU()

    def features(self, x: Tensor) -> Tensor:
        """Return the features at the resolution of x."""
        y: Tensor = self.prelu(self.batchnorm(self.conv(x)))
        return y


class Bottleneck(Block):
    """A block by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.features(x)


class Encoder(Block):
    """A block and the pool behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.maxpool = nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pooled features, their indices, and the features."""
        y = self.features(x)
        pooled, indices = self.maxpool(y)
        return pooled, indices, y


class Decoder(Block):
    """Unpooling by the encoder's indices, its features beside it, and a block."""

    def __init__(self) -> None:
        super().__init__(128)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x: Tensor, indices: Tensor, skip: Tensor) -> Tensor:
        """Return the features at the encoder's resolution."""
        return self.features(torch.cat([skip, self.unpool(x, indices)], 1))


class Classifier(nn.Module):
    """One logit a class."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        y: Tensor = self.conv(x)
        return y


class ReLayNet(nn.Module):
    """Three encoders, a bottleneck and three decoders; input (N, 1, H, W), both sizes multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1, self.encode2, self.encode3 = Encoder(1), Encoder(64), Encoder(64)
        self.bottleneck = Bottleneck(64)
        self.decode1, self.decode2, self.decode3 = Decoder(), Decoder(), Decoder()
        self.classifier = Classifier()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, 10, H, W)."""
        x1, i1, s1 = self.encode1(x)
        x2, i2, s2 = self.encode2(x1)
        x3, i3, s3 = self.encode3(x2)
        y = self.decode1(self.bottleneck(x3), i3, s3)
        logits: Tensor = self.classifier(self.decode3(self.decode2(y, i2, s2), i1, s1))
        return logits
