"""Which of the paper's figures about size do its own blocks give?

The network is nnU-Net's with six stages and 26 classes, without the heads of deep supervision, which change no figure
here. Not reproduced are "2.9x by fusing" (fusing adds weights: per pair of channels 6.5 become 7.5, of 27 in a plain
unit), "81 % fewer parameters" and "5x fewer": with blocks from 160 channels on the fused network has
61.9 % fewer, and fusing all units of width 3 could save no more than 1 - 7.5 / 27 = 72.2 % of their weights.
What is 2.9 is the plain network over the one in training form, 2.93; "3-4x smaller" holds where it is rounded.

Multiply-accumulates hardly shrink: of a 1 x 128^3 input, 478.8 G plain become 458.6 G in training form and 459.7 G
fused. Most are at the two upper resolutions, where nothing is replaced, and blocks with a stride convolve before it.
"""

from dataclasses import dataclass

import torch

from analyses.compress.fasterfusion.counting import block_parameters, parameters, plain_parameters
from analyses.compress.fasterfusion.fusing import fuse
from analyses.compress.fasterfusion.placing import place
from analyses.models.fasterfusion import Channels
from analyses.models.nnunet import FEATURES, PlainUNet

CLASSES = 26  # VerSe: 25 vertebrae and the background


@dataclass(frozen=True, slots=True)
class Claim:
    """A figure of the paper beside ours.

    Args:
        figure: What it says.
        least, most: The paper's figures that round to what it prints.
        here: Ours.
    """

    figure: str
    least: float
    most: float
    here: float

    @property
    def reproduced(self) -> bool:
        """Whether ours rounds to the paper's, or lies in its range."""
        return self.least <= self.here < self.most


def claims() -> list[Claim]:
    """Return the paper's figures about the number of parameters beside those of its description."""
    width = FEATURES[-1]
    channels = Channels.split(width, width)
    plain_block = plain_parameters(3, width, width)
    training_block, fused_block = (block_parameters(3, channels, form) for form in ("training", "fused"))
    network = PlainUNet(3, 1, CLASSES)
    placed = place(network, generator=torch.Generator().manual_seed(0)).eval()
    plain, trained, fused = parameters(network), parameters(placed), parameters(fuse(placed))
    return [
        Claim("parameters of the plain network, more than 30 million", 30e6, float("inf"), plain),
        Claim("parameters of a block, training form over fused", 2.85, 2.95, training_block / fused_block),
        Claim("parameters of a block, plain over fused", 2.85, 2.95, plain_block / fused_block),
        Claim("parameters that the fused network saves, of 1", 0.805, 0.815, 1 - fused / plain),
        Claim("parameters of the plain network over the fused one", 4.5, 5.5, plain / fused),
        Claim("smaller models, 3 to 4 times, fused", 2.5, 4.5, plain / fused),
        Claim("smaller models, 3 to 4 times, training form", 2.5, 4.5, plain / trained),
    ]
