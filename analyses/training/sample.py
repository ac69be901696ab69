"""One training sample: seven adjacent slices of a random head, and the classes of the middle one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from analyses.training.contrast import ContrastRanges, grow_ventricles, monotone, refold, scanner, tissue_image
from analyses.training.deform import DeformRanges, random_coordinates, sample
from analyses.training.head import HeadRanges, mask_surface, surroundings
from analyses.training.randomness import Dice, Shape3
from analyses.training.template import Template

CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Augmentation:
    """All bounds of the random heads; `real` is the share of images made from the template's own T1.

    The default stays near the brain. `harder` is what training goes on with: crops that wander over the whole
    head, more heads that are not masked, and larger ventricles.
    """

    deform: DeformRanges = field(default_factory=DeformRanges)
    contrast: ContrastRanges = field(default_factory=ContrastRanges)
    head: HeadRanges = field(default_factory=HeadRanges)
    real: float = 0.3

    @classmethod
    def harder(cls) -> "Augmentation":
        """Return the bounds of the second part of the training."""
        return cls(
            deform=DeformRanges(shift=(-40.0, 40.0)),
            contrast=ContrastRanges(ventricles=(0.0, 6.0)),
            head=HeadRanges(probability=0.55),
        )


def random_sample(
    template: Template, key: tuple[int, ...], size: tuple[int, int], augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Return slices (7, H, W) float32 in [0, 1] and the classes (H, W) int64 of the middle one.

    The key (seed, index) alone decides what is drawn. H runs from left to right, W from back to front, the slices
    from below upwards, as in an axial slice of an RAS+ volume.
    """
    dice = Dice.of(*key)
    shape: Shape3 = (*size, 2 * CONTEXT + 1)
    coordinates = random_coordinates(dice, shape, template.centre, augmentation.deform)
    fields = sample(template.fields, coordinates)
    t1, fractions, distance = fields[0], fields[1:4], fields[4]
    means = torch.tensor(template.means)
    if dice.happens(augmentation.real):
        image, levels = monotone(dice, t1, means), means
    else:
        mixture = (fractions * means[:, None, None, None]).sum(0)
        residual = (t1 - mixture) / (means[2] - means[0])
        fractions = grow_ventricles(dice, fractions, -distance, augmentation.contrast)
        fractions = refold(dice, fractions, augmentation.contrast)
        image, levels = tissue_image(dice, fractions, residual, -distance, augmentation.contrast)
    middle = fractions[..., CONTEXT]
    labels = torch.where(distance[..., CONTEXT] < 0.5, middle.argmax(0) + 1, 0)
    image, kept = surround(dice, image, distance, coordinates[2], levels, augmentation.head)
    image = scanner(dice, image, augmentation.contrast)
    image = torch.where(kept, image, 0.0).clamp(0, 1)
    return image.permute(2, 0, 1).contiguous(), torch.where(kept[..., CONTEXT], labels, 0)


def surround(
    dice: Dice, image: Tensor, distance: Tensor, height: Tensor, levels: Tensor, ranges: HeadRanges
) -> tuple[Tensor, Tensor]:
    """Return the image (*shape) with a head around the brain, and where a brain extraction would keep it (bool)."""
    shape: Shape3 = tuple(distance.shape)  # type: ignore[assignment]
    outside = surroundings(dice, distance, height, levels, ranges)
    image = torch.where(distance < 0.5, image, outside)
    if dice.happens(ranges.probability):
        return image, torch.ones(shape, dtype=torch.bool)
    return image, distance < mask_surface(dice, shape, ranges)


def random_batch(
    template: Template, seed: int, step: int, batch: int, size: tuple[int, int], augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Return the batch of a step: slices (N, 7, H, W) and classes (N, H, W)."""
    pairs = [random_sample(template, (seed, step * batch + i), size, augmentation) for i in range(batch)]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
