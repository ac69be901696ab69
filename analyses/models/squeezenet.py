"""SqueezeNet 1.0, pretrained on ImageNet: a stand-in for Xception (Iandola et al., arXiv 1602.07360).

Names are those of the file at hand, a port of the published Caffe model. Images are BGR in 0..255 less the means below,
cropped to 227 x 227; poolings are 3/2 and round up.
"""

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

SIZE = 227
BGR_MEANS = (104.0, 117.0, 123.0)
# Channels behind the squeeze and behind each half of the expansion; a pooling follows the fourth and the eighth.
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
POOLED = (4, 8)


class SqueezeNet(nn.Module):
    """Classify images of 227 x 227 pixels."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, 2)
        self.pools = nn.ModuleDict({f"pool{i}": nn.MaxPool2d(3, 2, ceil_mode=True) for i in (1, *POOLED)})
        inputs = 96
        for i, (squeeze, expand) in FIRES.items():
            self.add_module(f"fire{i}/conv1x1_1", nn.Conv2d(inputs, squeeze, 1))
            self.add_module(f"fire{i}/conv1x1_2", nn.Conv2d(squeeze, expand, 1))
            self.add_module(f"fire{i}/conv3x3_2", nn.Conv2d(squeeze, expand, 3, padding=1))
            inputs = 2 * expand
        self.conv_final = nn.Conv2d(inputs, classes, 1)
        self.relu, self.mean = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 3, H, W).

        Raises:
            InputError: x has another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(f"Expected x of shape (N, 3, {SIZE}, {SIZE}), got {tuple(x.shape)}.")
        x = self.pools["pool1"](self.relu(self.conv1(x)))
        for i in FIRES:
            one, small, large = (self.get_submodule(f"fire{i}/{n}") for n in ("conv1x1_1", "conv1x1_2", "conv3x3_2"))
            x = self.relu(one(x))
            x = torch.cat([self.relu(small(x)), self.relu(large(x))], 1)
            x = self.pools[f"pool{i}"](x) if i in POOLED else x
        logits: Tensor = self.mean(self.relu(self.conv_final(x))).flatten(1)
        return logits
