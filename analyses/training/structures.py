"""The task of the paper's FastSurfer: structures of real brains, learnt in one plane."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analyses.brains import TRAIN, VALIDATION, Brain, load_learnt
from analyses.models.checkpoint import Hyperparameters
from analyses.preprocessing.planes import filled, slices_of, thick_slices
from analyses.structures import CLASSES, IGNORED
from analyses.training.loop import Pair, Settings
from analyses.training.losses import balance, segmentation_loss
from analyses.training.randomness import Dice, Range

CROP = (192, 160)  # height and width of what is learnt from; in the planes with the front in it, height runs there
# Which of height (0) and width (1) runs from left to right; in sagittal slices none does.
SIDES = {"axial": 1, "coronal": 0, "sagittal": None}


@dataclass(frozen=True, slots=True)
class Ranges:
    """Bounds of the random changes of a slice."""

    turn: Range = (-0.2, 0.2)  # radians
    size: Range = (0.9, 1.12)
    shift: Range = (-12.0, 12.0)  # pixels
    shear: Range = (-0.06, 0.06)
    gamma: Range = (0.8, 1.25)
    gain: Range = (0.85, 1.1)
    noise: Range = (0.0, 0.02)


@dataclass(frozen=True, slots=True)
class StructuresSettings(Settings):
    """What decides the bits of a plane's network, apart from the machine. The width's ratio is FastSurferVINN's."""

    plane: str = "axial"
    sizes: Hyperparameters = field(default_factory=lambda: Hyperparameters(7, 32, 14, len(CLASSES)))
    ranges: Ranges = field(default_factory=Ranges)


class Structures:
    """Slices of the labelled brains and the classes of the middle one."""

    def __init__(self, settings: StructuresSettings, brains: Mapping[str, Brain] | None = None) -> None:
        self.settings = settings
        self._given = brains

    @cached_property
    def brains(self) -> Mapping[str, Brain]:
        """The subjects of training and validation, by name."""
        return load_learnt() if self._given is None else self._given

    @cached_property
    def places(self) -> list[tuple[str, int]]:
        """The slices that are learnt from: all that hold a structure."""
        return [(name, i) for name in TRAIN if name in self.brains for i in self._labelled(name)]

    @cached_property
    def weights(self) -> Tensor:
        """What each class weighs in the cross entropy, from the training subjects."""
        return balance(torch.stack([self.brains[name].classes for name in TRAIN if name in self.brains]), len(CLASSES))

    def _labelled(self, name: str) -> list[int]:
        return torch.nonzero(filled(self.brains[name].classes, self.settings.plane)).flatten().tolist()

    def network(self) -> nn.Module:
        """Return the network with random weights."""
        return self.settings.sizes.build()

    def batch(self, step: int) -> Pair:
        """Return slices (N, 7, H, W) and classes (N, H, W)."""
        s = self.settings
        pairs = []
        for k in range(step * s.batch, (step + 1) * s.batch):
            dice = Dice.of(s.seed, k)
            name, i = self.places[int(dice.uniform((0, len(self.places))))]
            x, y = self._pair(name, [i])
            pairs.append(changed(dice, x, y, CROP, SIDES[s.plane], s.ranges))
        return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])

    def _pair(self, name: str, indices: list[int]) -> Pair:
        brain, plane = self.brains[name], self.settings.plane
        x = thick_slices(brain.image, plane, indices, self.settings.sizes.slices // 2)
        return x, slices_of(brain.classes, plane)[indices].long()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return weighted cross entropy and soft Dice."""
        return segmentation_loss(output, target, IGNORED, self.weights.to(output.device))

    def validation(self) -> Iterator[Pair]:
        """Yield every eighth labelled slice of the validation subjects, whole, four at a time."""
        for name in VALIDATION:
            indices = self._labelled(name)[::8]
            for first in range(0, len(indices), 4):
                yield self._pair(name, indices[first : first + 4])


def changed(dice: Dice, x: Tensor, y: Tensor, size: tuple[int, int], side: int | None, ranges: Ranges) -> Pair:
    """Return one slice (1, C, *size) and its classes (1, *size), bent, mirrored or not, with another contrast.

    Args:
        x: (1, C, H, W) in [0, 1]; zeros, the background, stay zeros.
        y: (1, H, W).
        side: The axis from side to side, 0 (height) or 1 (width), along which it may be mirrored; None: the channels.
    """
    angle, scale = dice.uniform(ranges.turn), dice.uniform(ranges.size)
    turn = torch.tensor([[1.0, dice.uniform(ranges.shear)], [0.0, 1.0]]) / scale
    c, s = torch.tensor(angle).cos(), torch.tensor(angle).sin()
    matrix = torch.stack([torch.stack([c, -s]), torch.stack([s, c])]) @ turn
    if dice.happens(0.5):
        x, matrix = (x.flip(1), matrix) if side is None else (x, matrix @ _mirror(side))
    whole = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float32)  # grid_sample counts width first
    crop = torch.tensor([size[1], size[0]], dtype=torch.float32)
    middle = dice.uniforms(ranges.shift, 2) / (whole / 2)
    theta = torch.cat([matrix * crop / whole[:, None], middle[:, None]], 1)[None]
    grid = F.affine_grid(theta, [1, 1, *size], align_corners=False)
    image = F.grid_sample(x, grid, mode="bilinear", align_corners=False)
    classes = F.grid_sample(y[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()
    contrast = dice.uniform(ranges.gain) * image ** dice.uniform(ranges.gamma)
    contrast = contrast + dice.uniform(ranges.noise) * dice.normal(tuple(image.shape))
    return torch.where(image > 0, contrast, 0.0).clamp(0, 1), classes


def _mirror(side: int) -> Tensor:
    return torch.diag(torch.tensor([1.0, -1.0] if side == 0 else [-1.0, 1.0]))  # width first, as in the grid
