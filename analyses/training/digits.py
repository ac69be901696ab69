"""The tasks on digits: the paper's classifier, with and without NaNs, and a small network of Xception's structure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nanops
from analyses.mnist_data import HELD_OUT, Digits, load_digits
from analyses.models.mnist import MnistNet
from analyses.models.xception import Xception
from analyses.training.loop import Pair, Settings
from analyses.training.randomness import Dice

SEPARABLE_SIZE = 71  # the least that Xception's reference implementation takes
WIDTH, MIDDLE = 0.25, 2


class SmallXception(nn.Module):
    """Xception at a quarter of its width, with two blocks of the middle flow, for digits enlarged to 71 x 71 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Xception(10, 1, WIDTH, MIDDLE)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of images (N, 1, H, W)."""
        x = F.interpolate(x, (SEPARABLE_SIZE, SEPARABLE_SIZE), mode="bilinear", align_corners=False)
        logits: Tensor = self.network(x)
        return logits


def nan_mnist() -> nn.Module:
    """Return the digit classifier with aggressive NaNs (t1 = 1, t2 = 1, approach A), to be trained through them."""
    return nanops.convert(MnistNet(), "aggressive", 1.0)


NETWORKS = {"mnist": MnistNet, "mnist_nan": nan_mnist, "separable": SmallXception}
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class DigitsSettings(Settings):
    """What decides the bits of a digit classifier, apart from the machine."""

    network: str = "mnist"
    shift: float = 2.0  # pixels, of the random displacement


class ClassifyDigits:
    """Digits, displaced a little, and their classes."""

    def __init__(
        self, settings: DigitsSettings, digits: Digits | None = None, start: Callable[[], Weights] | None = None
    ) -> None:
        """Take the settings, the training images where they are not MNIST's, and the weights to start from."""
        self.settings, self._given, self._start = settings, digits, start

    @cached_property
    def digits(self) -> Digits:
        """The training images, of which the last are held out."""
        return load_digits("train") if self._given is None else self._given

    def network(self) -> nn.Module:
        """Return the network, with random weights where there are none to start from."""
        network = NETWORKS[self.settings.network]()
        if self._start is not None:
            network.load_state_dict(dict(self._start()))
        return network

    def batch(self, step: int) -> Pair:
        """Return images (N, 1, 28, 28) and classes (N,)."""
        s = self.settings
        dice = Dice.of(s.seed, step)
        chosen = torch.randint(max(1, len(self.digits.classes) - HELD_OUT), (s.batch,), generator=dice.generator)
        x = self.digits.inputs(chosen)
        reach = int(s.shift)
        background = float(x.min())
        padded = F.pad(x, (reach,) * 4, value=background)
        dx, dy = torch.randint(2 * reach + 1, (2,), generator=dice.generator).tolist()
        return padded[..., dy : dy + x.shape[2], dx : dx + x.shape[3]], self.digits.classes[chosen]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross entropy."""
        return F.cross_entropy(output, target)

    def validation(self) -> Iterator[Pair]:
        """Yield the held out images, five hundred at a time."""
        n = len(self.digits.classes)
        for indices in torch.arange(max(0, n - HELD_OUT), n).split(500):
            yield self.digits.inputs(indices), self.digits.classes[indices]
