"""The synthetic task: ellipsoids in three dimensions, which a network learns within seconds to minutes."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from analyses.models.e2enet import E2ENet
from analyses.models.nnunet import PlainUNet
from analyses.training.budget import Pair
from analyses.training.losses import segmentation_loss
from analyses.training.randomness import Dice
from analyses.training.synthetic_heads import CLASSES, LEARNT, UNSEEN, Heads, head, load_heads

VALIDATED = 2  # heads; they follow those that are learnt from
loaded = lru_cache(maxsize=8)(load_heads)


@dataclass(frozen=True, slots=True)
class SyntheticHeads:
    """Heads to learn from and others to test on; a `Task`.

    Args:
        heads: How they look.
        learnt, unseen: How many.
        probed_size: Voxels an axis of the heads that the emulator sees; probes: how many.
        batch_size: Heads a step.
    """

    heads: Heads = field(default_factory=Heads)
    learnt: int = 24
    unseen: int = 8
    probed_size: int = 16
    probes: int = 4
    batch_size: int = 1
    name: str = field(default="synthetic heads", init=False)
    classes: tuple[str, ...] = field(default=("background", "shell", "inner ellipsoid", "spheres"), init=False)

    def identity(self) -> dict[str, Any]:
        return asdict(self)

    def batch(self, seed: int, step: int) -> Pair:
        images, classes = loaded(self.heads, LEARNT, self.learnt)
        chosen = torch.randint(self.learnt, (self.batch_size,), generator=Dice.of(seed, step).generator)
        return images[chosen], classes[chosen]

    def loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        return segmentation_loss(logits, classes)

    def validation(self) -> Iterator[Pair]:
        for i in range(self.learnt, self.learnt + VALIDATED):
            image, classes = head(self.heads, LEARNT, i)
            yield image[None], classes[None]

    def subjects(self) -> Iterator[tuple[str, list[Pair]]]:
        images, classes = loaded(self.heads, UNSEEN, self.unseen)
        for i in range(self.unseen):
            yield str(i), [(images[i : i + 1], classes[i : i + 1])]

    def counted(self, classes: Tensor) -> Tensor:
        return torch.ones_like(classes, dtype=torch.bool)

    def timed(self) -> list[Tensor]:
        return [loaded(self.heads, UNSEEN, self.unseen)[0][:1]]

    def probed(self) -> list[Tensor]:
        return [head(replace(self.heads, size=self.probed_size), UNSEEN, i)[0][None] for i in range(self.probes)]

    def plain(self, features: tuple[int, ...], downsampling: str = "pool", norm: str = "batch") -> nn.Module:
        return PlainUNet(3, 1, CLASSES, features, downsampling=downsampling, norm=norm)

    def e2enet(self, features: tuple[int, ...]) -> nn.Module:
        return E2ENet(1, CLASSES, tuple(3 * n // 2 for n in features))

    def core(self, network: nn.Module) -> tuple[nn.Module, Tensor]:
        return network, torch.zeros(2, 1, *(self.heads.size,) * 3)
