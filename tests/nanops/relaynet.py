"""ReLayNet (Roy et al. 2017), as its published parameters describe it: indices, unpools, skip connections."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels, filters=64):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, (3, 7), padding=(1, 3))
        self.batchnorm = nn.BatchNorm2d(filters)
        self.prelu = nn.PReLU()

    def forward(self, x):
        return self.prelu(self.batchnorm(self.conv(x)))


class Encoder(Block):
    def __init__(self, channels):
        super().__init__(channels)
        self.maxpool = nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x):
        y = super().forward(x)
        return *self.maxpool(y), y


class Decoder(Block):
    def __init__(self):
        super().__init__(128)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x, indices, skip):
        return super().forward(torch.cat([skip, self.unpool(x, indices)], 1))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 10, 1)

    def forward(self, x):
        return self.conv(x)


class ReLayNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode1, self.encode2, self.encode3 = Encoder(1), Encoder(64), Encoder(64)
        self.bottleneck = Block(64)
        self.decode1, self.decode2, self.decode3 = Decoder(), Decoder(), Decoder()
        self.classifier = Classifier()

    def forward(self, x):
        x1, i1, s1 = self.encode1(x)
        x2, i2, s2 = self.encode2(x1)
        x3, i3, s3 = self.encode3(x2)
        y = self.decode1(self.bottleneck(x3), i3, s3)
        return self.classifier(self.decode3(self.decode2(y, i2, s2), i1, s1))
