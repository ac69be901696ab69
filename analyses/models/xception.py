"""Xception: depthwise separable convolutions with linear skips (Chollet, CVPR 2017; Figure 12 of the paper).

Names are those of the published state dict of its PyTorch port (`xception-43020ad28.pth`): a block's `rep` counts its
layers. Nothing here is that port's code.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from mcaprobe.errors import InputError

SIZE, RESIZE = 299, 333
MEAN = STD = 0.5
MIDDLE = range(4, 12)


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel alone, then a 1x1 one; no bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W) of x (N, inputs, H, W)."""
        y: Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """Separable convolutions, each with its batch normalisation, and a skip.

    Args:
        widths: Channels at the input and behind each convolution.
        stride: 2: a 3/2/1 max-pooling at the end, and a 1x1 convolution with stride 2 as the skip; 1: none.
        relu_first: Whether a ReLU comes before the first convolution.
    """

    def __init__(self, widths: tuple[int, ...], stride: int, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [nn.ReLU()] if i or relu_first else []
            layers += [SeparableConv(inputs, outputs), nn.BatchNorm2d(outputs)]
        if stride != 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
            self.skip: nn.Module | None = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
        else:
            self.skip = None
        self.rep = nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, half as high and wide where it has a stride of 2."""
        y: Tensor = self.rep(x)
        return y + (x if self.skip is None else self.skipbn(self.skip(x)))


class Xception(nn.Module):
    """Classify images of 299 x 299 pixels, whose channels have mean and standard deviation .5 subtracted and divided.

    Args:
        classes: 1000 in the paper.
        channels: Of the image, 3 in the paper.
        width: Factor of all channels between; 1 in the paper, less for a small network of the same structure.
        middle: Blocks of the middle flow, 8 in the paper.
    """

    def __init__(self, classes: int = 1000, channels: int = 3, width: float = 1.0, middle: int = len(MIDDLE)) -> None:
        super().__init__()
        self.channels = channels

        def w(n: int) -> int:
            return max(1, round(width * n))

        self.conv1 = nn.Conv2d(channels, w(32), 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(w(32))
        self.conv2 = nn.Conv2d(w(32), w(64), 3, bias=False)
        self.bn2 = nn.BatchNorm2d(w(64))
        self.block1 = Block((w(64), w(128), w(128)), 2, relu_first=False)
        self.block2 = Block((w(128), w(256), w(256)), 2)
        self.block3 = Block((w(256), w(728), w(728)), 2)
        self.middle = [f"block{i}" for i in range(MIDDLE.start, MIDDLE.start + middle)]
        for name in self.middle:
            self.add_module(name, Block((w(728),) * 4, 1))
        self.last = f"block{MIDDLE.start + middle}"
        self.add_module(self.last, Block((w(728), w(728), w(1024)), 2))
        self.conv3, self.bn3 = SeparableConv(w(1024), w(1536)), nn.BatchNorm2d(w(1536))
        self.conv4, self.bn4 = SeparableConv(w(1536), w(2048)), nn.BatchNorm2d(w(2048))
        self.relu = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w(2048), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W).

        Raises:
            InputError: x has another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(f"Expected x of shape (N, {self.channels}, H, W), got {tuple(x.shape)}.")
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        for name in ("block1", "block2", "block3", *self.middle, self.last):
            x = self.get_submodule(name)(x)
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.bn4(self.conv4(x)))
        logits: Tensor = self.fc(self.mean(x).flatten(1))
        return logits
