"""The real task: 15 structures of manually labelled brains, 2.5-D: axial slices with their neighbours.

Subjects are those of `analyses.brains`: nine to learn from, one for validation, five that no network sees before the
test. As nnU-Net crops to what is not zero, each volume is cropped to a box around its brain, the same size for all.
Every network sees a stack of slices, with one more at either end: networks in two dimensions each slice with its
neighbours (`ThickSlices`), E2ENet these as a small volume (`MiddleSlices`). They learn from patches of single slices.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from analyses.brains import TEST, TRAIN, VALIDATION, Brain, load_brain
from analyses.models.e2enet import E2ENet
from analyses.models.nnunet import PlainUNet
from analyses.models.thick import MiddleSlices, ThickSlices
from analyses.preprocessing.planes import slices_of, with_neighbours
from analyses.structures import CLASSES, IGNORED
from analyses.training.budget import Pair
from analyses.training.losses import balance, segmentation_loss
from analyses.training.randomness import Dice
from analyses.training.structures import SIDES, Ranges, changed

PLANE = "axial"
EXAMPLE = 64  # voxels an axis of the slice that pruning traces
# Less than what a network with more steps is trained on (analyses.training.structures).
MILD = Ranges((-0.1, 0.1), (0.95, 1.06), (-6.0, 6.0), (-0.03, 0.03), (0.9, 1.12), (0.92, 1.05), (0.0, 0.01))


@dataclass(frozen=True, slots=True)
class BrainStacks:
    """Stacks of slices of labelled brains; a `Task`.

    Args:
        box: Slices, height and width of the crop, 1 mm each; all 15 brains fit.
        depth: Slices of a stack that are labelled, a divisor of the box's.
        context: Neighbours that are seen on either side of a slice.
        patch: Height and width of what is learnt from; batch_size: patches a step.
        train, validate, test: Subjects.
        timed_stacks: Stacks of the first test subject that are timed, evenly spaced.
        ranges: Of the random changes of what is learnt from.
    """

    box: tuple[int, int, int] = (144, 192, 152)
    depth: int = 8
    context: int = 1
    patch: tuple[int, int] = (96, 96)
    batch_size: int = 8
    train: tuple[str, ...] = TRAIN
    validate: tuple[str, ...] = VALIDATION
    test: tuple[str, ...] = TEST
    timed_stacks: int = 4
    ranges: Ranges = MILD
    name: str = field(default="structures of brains", init=False)
    classes: tuple[str, ...] = field(default=CLASSES, init=False)

    def identity(self) -> dict[str, Any]:
        return asdict(self)

    def batch(self, seed: int, step: int) -> Pair:
        """Return patches of random slices of random subjects, bent, mirrored or not, with another contrast."""
        pairs = [self._patch(Dice.of(seed, step, k)) for k in range(self.batch_size)]
        return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])

    def _patch(self, dice: Dice) -> Pair:
        name = self.train[int(dice.uniform((0, len(self.train))))]
        image, classes = boxed(name, self.box)
        i = int(dice.uniform((0, len(image))))
        x, y = with_neighbours(image, [i], self.context), classes[i][None]
        x, y = changed(dice, x, y, self.box[1:], SIDES[PLANE], self.ranges)
        corner = [int(dice.uniform((0, n - m + 1))) for n, m in zip(self.box[1:], self.patch, strict=True)]
        rows, columns = (slice(a, a + m) for a, m in zip(corner, self.patch, strict=True))
        return x[..., rows, columns][:, None].contiguous(), y[..., rows, columns][:, None].contiguous()

    def loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return weighted cross entropy and soft Dice."""
        return segmentation_loss(logits, classes, IGNORED, weights(self.train, self.box))

    def validation(self) -> Iterator[Pair]:
        """Yield every fourth stack."""
        for name in self.validate:
            yield from self._stacks(name)[::4]

    def subjects(self) -> Iterator[tuple[str, list[Pair]]]:
        for name in self.test:
            yield name, self._stacks(name)

    def counted(self, classes: Tensor) -> Tensor:
        return classes != IGNORED

    def timed(self) -> list[Tensor]:
        stacks = self._stacks(self.test[0])
        step = len(stacks) / self.timed_stacks
        return [stacks[int((k + 0.5) * step)][0] for k in range(self.timed_stacks)]

    def probed(self) -> list[Tensor]:
        """Return of each test subject the stack in the middle, the middle half of its height, all of its width."""
        found, height = [], self.box[1]
        for name in self.test:
            stacks = self._stacks(name)
            found.append(stacks[len(stacks) // 2][0][..., height // 4 : height - height // 4, :].contiguous())
        return found

    def plain(self, features: tuple[int, ...], downsampling: str = "pool", norm: str = "batch") -> nn.Module:
        channels = 2 * self.context + 1
        network = PlainUNet(2, channels, len(CLASSES), features, downsampling=downsampling, norm=norm)
        return ThickSlices(network, self.context)

    def e2enet(self, features: tuple[int, ...]) -> nn.Module:
        strides = ((1, 1, 1), *(((1, 2, 2),) * (len(features) - 1)))
        return MiddleSlices(E2ENet(1, len(CLASSES), tuple(3 * n // 4 for n in features), strides), self.context)

    def core(self, network: nn.Module) -> tuple[nn.Module, Tensor]:
        assert isinstance(network, ThickSlices)
        return network.network, torch.zeros(2, 2 * self.context + 1, EXAMPLE, EXAMPLE)

    def _stacks(self, name: str) -> list[Pair]:
        image, classes = boxed(name, self.box)
        found = []
        for first in range(0, len(image), self.depth):
            around = torch.arange(first - self.context, first + self.depth + self.context).clamp(0, len(image) - 1)
            found.append((image[around][None, None], classes[first : first + self.depth][None].long()))
        return found


@lru_cache(maxsize=32)
def boxed(name: str, box: tuple[int, int, int]) -> Pair:
    """Return the slices of a subject in a box around its brain: float32 in [0, 1], and classes uint8."""
    return crop(load_brain(name), box)


def crop(brain: Brain, box: tuple[int, int, int]) -> Pair:
    """Return image (slices, H, W) in [0, 1] and classes of the box whose middle is that of the brain's own."""
    image, classes = slices_of(brain.image, PLANE), slices_of(brain.classes, PLANE)
    places = torch.nonzero(image > 0)
    low, high = places.min(0).values.tolist(), places.max(0).values.tolist()
    cut = []
    for a, b, size, whole in zip(low, high, box, image.shape, strict=True):
        first = min(max((a + b + 1 - size) // 2, 0), whole - size)
        cut.append(slice(first, first + size))
    return image[tuple(cut)].float() / 255, classes[tuple(cut)].contiguous()


@lru_cache(maxsize=4)
def weights(train: tuple[str, ...], box: tuple[int, int, int]) -> Tensor:
    """Return what each class weighs in the cross entropy."""
    return balance(torch.stack([boxed(name, box)[1] for name in train]), len(CLASSES))
