"""The real task: 15 structures of manually labelled brains, in stacks of axial slices, 2.5-D.

Subjects are those of `analyses.brains`: nine to learn from, one for validation, five that no network sees before the
test. As nnU-Net crops to what is not zero, each volume is cropped to a box around its brain, the same size for all.
Networks in two dimensions see each slice of a stack with its neighbours (`ThickSlices`), E2ENet the stack as a volume.
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
from analyses.models.thick import ThickSlices
from analyses.preprocessing.planes import slices_of
from analyses.structures import CLASSES, IGNORED
from analyses.training.budget import Pair
from analyses.training.losses import balance, segmentation_loss
from analyses.training.randomness import Dice
from analyses.training.structures import SIDES, Ranges, changed

PLANE = "axial"
EXAMPLE = 64  # voxels an axis of the slice that pruning traces


@dataclass(frozen=True, slots=True)
class BrainStacks:
    """Stacks of slices of labelled brains; a `Task`.

    Args:
        box: Slices, height and width of the crop, 1 mm each.
        depth: Slices of a stack, a divisor of the box's.
        context: Neighbours that a network in two dimensions sees on either side of a slice, within the stack.
        train, validate, test: Subjects.
        timed_stacks: Stacks of the first test subject that are timed, evenly spaced.
        ranges: Of the random changes of what is learnt from.
    """

    box: tuple[int, int, int] = (136, 192, 144)
    depth: int = 8
    context: int = 1
    train: tuple[str, ...] = TRAIN
    validate: tuple[str, ...] = VALIDATION
    test: tuple[str, ...] = TEST
    timed_stacks: int = 4
    ranges: Ranges = field(default_factory=Ranges)
    name: str = field(default="structures of brains", init=False)
    classes: tuple[str, ...] = field(default=CLASSES, init=False)

    def identity(self) -> dict[str, Any]:
        return asdict(self)

    def batch(self, seed: int, step: int) -> Pair:
        """Return one stack of a random subject, bent, mirrored or not, with another contrast."""
        dice = Dice.of(seed, step)
        name = self.train[int(dice.uniform((0, len(self.train))))]
        image, classes = boxed(name, self.box)
        first = int(dice.uniform((0, len(image) - self.depth + 1)))
        here = slice(first, first + self.depth)
        x, y = changed(dice, image[here][None], classes[here][None], self.box[1:], SIDES[PLANE], self.ranges)
        return x[None], y

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
        return E2ENet(1, len(CLASSES), tuple(3 * n // 4 for n in features))

    def core(self, network: nn.Module) -> tuple[nn.Module, Tensor]:
        assert isinstance(network, ThickSlices)
        return network.network, torch.zeros(2, 2 * self.context + 1, EXAMPLE, EXAMPLE)

    def _stacks(self, name: str) -> list[Pair]:
        image, classes = boxed(name, self.box)
        firsts = range(0, len(image), self.depth)
        return [
            (image[i : i + self.depth][None, None], classes[i : i + self.depth][None].long()) for i in firsts
        ]  # fmt: skip


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
