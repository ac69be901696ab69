"""What is around the brain? A mask, or a synthetic head: meninges, skull, scalp, face and neck, then air."""

from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.training.randomness import Dice, Range, Shape3


@dataclass(frozen=True, slots=True)
class HeadRanges:
    """Bounds of the random surroundings; lengths in millimetres."""

    probability: float = 0.45  # of a head around the brain; otherwise the image is masked
    meninges: Range = (0.0, 4.0)
    skull: Range = (2.5, 9.0)
    scalp: Range = (3.0, 16.0)
    wobble: Range = (0.0, 1.0)  # relative change of the thicknesses over the head
    face_height: Range = (20.0, 75.0)  # below this template voxel there is face or neck
    mask_error: Range = (-1.2, 2.5)  # of the mask's surface; positive leaves tissue around the brain


def patches(dice: Dice, shape: Shape3, spacing: float, levels: Tensor) -> Tensor:
    """Return a random map (*shape) of patches, each with one of the levels (n,), slightly textured."""
    noise = dice.smooth(len(levels), shape, spacing)
    largest, image = noise[0], torch.full(shape, float(levels[0]))
    for candidate, level in zip(noise[1:], levels[1:], strict=True):  # faster than argmax over the first axis
        image = torch.where(candidate > largest, level, image)
        largest = torch.maximum(candidate, largest)
    return image * (1 + 0.12 * dice.smooth(1, shape, 3.0)[0])


def surroundings(dice: Dice, distance: Tensor, height: Tensor, means: Tensor, ranges: HeadRanges) -> Tensor:
    """Return the intensities (*shape) of everything outside the brain of a full head.

    Args:
        distance: millimetres from the brain's surface, (*shape).
        height: the template's third voxel coordinate, (*shape).
        means: mean intensities of csf, grey and white, (3,).
    """
    shape: Shape3 = tuple(distance.shape)  # type: ignore[assignment]
    wobble = (dice.uniform(ranges.wobble) * 0.5 * dice.smooth(3, shape, 20.0)).exp()
    inner = dice.uniform(ranges.meninges) * wobble[0]
    outer = inner + dice.uniform(ranges.skull) * wobble[1]
    skin = outer + dice.uniform(ranges.scalp) * wobble[2]
    bone, fat, air = dice.uniform((0.0, 0.25)), dice.uniform((0.3, 1.1)), dice.uniform((0.0, 0.04))
    dura = float(means[0]) * dice.uniform((0.6, 1.8))
    marrow = dice.uniform((0.0, 0.9)) if dice.happens(0.7) else bone
    middle = 1 - ((distance - (inner + outer) / 2).abs() / ((outer - inner) / 2 + 0.1)).clamp(0, 1)
    skull = bone + (marrow - bone) * (middle * 2 - 0.8).clamp(0, 1)
    soft = patches(dice, shape, dice.uniform((4.0, 12.0)), torch.cat([dice.uniforms((0.05, 1.1), 3), means]))
    scalp = fat * (1 + 0.2 * dice.smooth(1, shape, 5.0)[0])
    scalp = torch.where(dice.smooth(1, shape, 12.0)[0] > 0.5, soft, scalp)
    skull = torch.where(height < dice.uniform(ranges.face_height), soft, skull)
    skin = torch.where(height < dice.uniform(ranges.face_height), skin + dice.uniform((0.0, 50.0)), skin)
    image = torch.where(distance < inner, torch.full(shape, dura), skull)
    image = torch.where(distance < outer, image, scalp)
    image = torch.where(distance < skin, image, torch.full(shape, air))
    return image


def mask_surface(dice: Dice, shape: Shape3, ranges: HeadRanges) -> Tensor:
    """Return the signed distance (*shape) at which a brain extraction of random quality cuts, in millimetres."""
    return dice.uniform(ranges.mask_error) + dice.uniform((0.0, 1.0)) * dice.smooth(1, shape, 10.0)[0]
