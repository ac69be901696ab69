"""A U-Net that removes noise from photographs, pretrained: a stand-in for FONDUE (Lehtinen et al., ICML 2018).

Names are those of the file at hand. The second block is used four times, the fifth three times.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError

MULTIPLE = 32


def _block(*widths: int, end: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, end)


def _up(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 3, 2, 1, output_padding=1)


class Noise2Noise(nn.Module):
    """Denoise images whose intensities are in [0, 1]."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self._block1 = _block(channels, 48, 48, end=nn.MaxPool2d(2))
        self._block2 = _block(48, 48, end=nn.MaxPool2d(2))
        self._block3 = _block(48, 48, end=_up(48))
        self._block4 = _block(96, 96, 96, end=_up(96))
        self._block5 = _block(144, 96, 96, end=_up(96))
        self._block6 = nn.Sequential(*_block(96 + channels, 64, 32, end=nn.Conv2d(32, channels, 3, padding=1)))
        self._end = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the denoised images, (N, channels, H, W).

        Raises:
            InputError: another number of channels, or a height or width that is no multiple of 32.
        """
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % MULTIPLE or x.shape[3] % MULTIPLE:
            raise InputError(
                f"Expected x of shape (N, {self.channels}, H, W) with multiples of {MULTIPLE}, got {tuple(x.shape)}."
            )
        levels = [x, self._block1(x)]
        for _ in range(3):
            levels.append(self._block2(levels[-1]))
        y = self._block3(self._block2(levels[-1]))
        y = self._block4(torch.cat([y, levels.pop()], 1))
        while len(levels) > 1:
            y = self._block5(torch.cat([y, levels.pop()], 1))
        out: Tensor = self._end(self._block6(torch.cat([y, x], 1)))
        return out
