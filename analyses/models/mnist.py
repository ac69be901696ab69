"""The paper's digit classifier: four 3x3 convolutions, three poolings, no linear layer but a mean at the end.

1 -> 32 -> 64 -> 128 -> 10 channels, ReLU, max-pooling by 2 behind the first three (Figure 13 of the paper). The paper
does not say what becomes of the last 3 x 3 pixels; the published code means their average, which is the logit here.
"""

from torch import Tensor, nn

from mcaprobe.errors import InputError

MEAN, STD = 0.1307, 0.3081


class MnistNet(nn.Module):
    """Classify digits of 28 x 28 pixels; logits are the means of the last convolution's channels.

    Args:
        pool_first: Whether poolings come before their ReLU. The function is the same, the ties are not: behind a ReLU
            every window without a positive value is a window of equal zeros.
    """

    def __init__(self, pool_first: bool = False) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.conv3, self.conv4 = nn.Conv2d(64, 128, 3, padding=1), nn.Conv2d(128, 10, 3, padding=1)
        self.pool1, self.pool2, self.pool3 = (nn.MaxPool2d(2) for _ in range(3))
        self.relu = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of images (N, 1, 28, 28), normalised by MEAN and STD."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise InputError(f"Expected x of shape (N, 1, 28, 28), got {tuple(x.shape)}.")
        for conv, pool in ((self.conv1, self.pool1), (self.conv2, self.pool2), (self.conv3, self.pool3)):
            y = conv(x)
            x = self.relu(pool(y)) if self.pool_first else pool(self.relu(y))
        logits: Tensor = self.mean(self.conv4(x)).flatten(1)
        return logits
