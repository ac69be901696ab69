"""The demo's task: tissues of random heads that are made from the template."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from analyses.models.checkpoint import Hyperparameters
from analyses.training.loop import Pair, Settings
from analyses.training.losses import segmentation_loss
from analyses.training.sample import Augmentation, random_batch
from analyses.training.template import Template


@dataclass(frozen=True, slots=True)
class TissueSettings(Settings):
    """What decides the bits of the demo's network, apart from the machine."""

    size: tuple[int, int] = (128, 160)
    sizes: Hyperparameters = field(default_factory=Hyperparameters)
    augmentation: Augmentation = field(default_factory=Augmentation)
    harder: Augmentation = field(default_factory=Augmentation.harder)
    harder_from: int = 800  # step


@dataclass(frozen=True)
class Tissue:
    """Slices of random heads and the classes of the middle one."""

    settings: TissueSettings
    template: Template

    def network(self) -> nn.Module:
        """Return the network with random weights."""
        return self.settings.sizes.build()

    def batch(self, step: int) -> Pair:
        """Return slices (N, 7, H, W) and classes (N, H, W)."""
        s = self.settings
        augmentation = s.augmentation if step < s.harder_from else s.harder
        return random_batch(self.template, s.seed, step, s.batch, s.size, augmentation)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return cross entropy and soft Dice."""
        return segmentation_loss(output, target)

    def validation(self) -> Iterator[Pair]:
        """Yield nothing: every head is new."""
        return iter(())
