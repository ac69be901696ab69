"""What does a volume look like on which a 3-D network learns within seconds? Heads of ellipsoids and two spheres.

Classes: 0 background, exactly 0 as in a masked brain; 1 the shell between two ellipsoids, one inside the other; 2 the
inner ellipsoid; 3 a sphere on either side within it. All sizes are shares of half the volume, so that any size will do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.training.randomness import Dice, Range
from mcaprobe.errors import InputError

CLASSES = 4
LEARNT, UNSEEN = 0, 1  # which heads: those to learn from, and others


@dataclass(frozen=True, slots=True)
class Heads:
    """Bounds of the random heads; lengths in shares of half the volume's size.

    Args:
        size: Voxels an axis, 8 or more.
        seed: Of all heads.
    """

    size: int = 24
    seed: int = 0
    axes: Range = (0.8, 0.95)  # half axes of the outer ellipsoid
    inner: Range = (0.72, 0.8)  # of the inner one, as a share of the outer's
    shift: Range = (-0.08, 0.08)
    lateral: Range = (0.28, 0.34)  # from the middle to that of a sphere
    radius: Range = (0.2, 0.26)
    intensities: tuple[float, float, float] = (0.5, 1.0, 0.3)
    contrast: Range = (0.9, 1.1)
    noise: float = 0.05
    bias: Range = (0.05, 0.2)  # of the logarithm of a smooth field

    def __post_init__(self) -> None:
        if self.size < 8 or self.seed < 0:
            raise InputError(f"Expected a size of 8 or more and a seed of 0 or more, got {self.size} and {self.seed}.")


def head(heads: Heads, which: int, index: int) -> tuple[Tensor, Tensor]:
    """Return an image (1, D, H, W) float32, not negative, and its classes (D, H, W) int64.

    Args:
        which: LEARNT or UNSEEN.
        index: Of the head; the same one is always the same.
    """
    dice = Dice.of(heads.seed, which, index)
    n = heads.size
    shape = (n, n, n)
    classes = _classes(heads, dice)
    levels = torch.zeros(CLASSES)
    for k, level in enumerate(heads.intensities, start=1):
        levels[k] = level * dice.uniform(heads.contrast)
    field = (dice.uniform(heads.bias) * dice.smooth(1, shape, n / 2)[0]).exp()
    image = (levels[classes] * field + heads.noise * dice.normal(shape)).clamp(min=0)
    return torch.where(classes > 0, image, 0.0)[None], classes


def _classes(heads: Heads, dice: Dice) -> Tensor:
    line = (torch.arange(heads.size) + 0.5) / heads.size * 2 - 1
    places = torch.stack(torch.meshgrid(line, line, line, indexing="ij"))
    middle = dice.uniforms(heads.shift, 3).reshape(3, 1, 1, 1)
    axes = dice.uniforms(heads.axes, 3).reshape(3, 1, 1, 1)
    inner = axes * dice.uniform(heads.inner)
    classes = torch.zeros((heads.size,) * 3, dtype=torch.int64)
    classes[_inside(places - middle, axes)] = 1
    classes[_inside(places - middle, inner)] = 2
    for side in (-1, 1):
        centre = middle.clone()
        centre[2] += side * dice.uniform(heads.lateral)
        radius = dice.uniform(heads.radius)
        classes[_inside(places - centre, torch.full_like(axes, radius)) & (classes == 2)] = 3
    return classes


def _inside(places: Tensor, axes: Tensor) -> Tensor:
    return ((places / axes) ** 2).sum(0) <= 1


def load_heads(heads: Heads, which: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` heads: images (count, 1, D, H, W), classes (count, D, H, W)."""
    if which not in (LEARNT, UNSEEN) or count < 1:
        raise InputError(f"Expected heads {LEARNT} or {UNSEEN} and a count of 1 or more, got {which} and {count}.")
    pairs = [head(heads, which, i) for i in range(count)]
    return torch.stack([image for image, _ in pairs]), torch.stack([classes for _, classes in pairs])
