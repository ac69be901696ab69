"""What would another scanner have seen? Random intensities of the tissues and of what surrounds them.

After SynthSeg (Billot et al., Medical Image Analysis 2023): intensities are drawn, not learnt. Here they follow
T1 in most draws (csf < grey < white), since the network is for T1 images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.training.randomness import Dice, Range, Shape3


@dataclass(frozen=True, slots=True)
class ContrastRanges:
    """Bounds of the random contrast; intensities are fractions of the image's 99.9 % quantile."""

    white: Range = (0.38, 0.97)
    grey_over_white: Range = (0.52, 0.86)
    csf_over_white: Range = (0.08, 0.50)
    any_contrast: float = 0.05  # share of the images whose intensities do not follow T1
    sharpness: Range = (1.0, 4.0)  # exponent of the tissue fractions
    folding: Range = (0.0, 1.6)  # amplitude of the noise on the logarithms of the fractions: new sulci
    folding_spacing: Range = (2.5, 5.0)
    ventricles: Range = (0.0, 0.0)  # how far deep CSF grows: old brains have more of it than the template
    texture: Range = (0.0, 1.6)  # how much of the template's own deviation from its tissue means is kept
    deep_grey: Range = (-0.1, 0.6)  # shift of deep grey from cortical grey towards white
    tissue_field: Range = (0.0, 0.08)  # smooth change of each tissue's own mean
    speckle: Range = (0.0, 0.05)
    bias: Range = (0.0, 0.25)
    blur: Range = (0.0, 0.9)  # standard deviation in voxels
    noise: Range = (0.003, 0.05)
    gamma: Range = (0.75, 1.35)


def tissue_means(dice: Dice, ranges: ContrastRanges) -> Tensor:
    """Return the mean intensities of csf, grey and white, (3,)."""
    if dice.happens(ranges.any_contrast):
        return dice.uniforms((0.05, 0.95), 3)
    white = dice.uniform(ranges.white)
    grey = white * dice.uniform(ranges.grey_over_white)
    csf = min(white * dice.uniform(ranges.csf_over_white), grey - 0.1 * white)
    return torch.tensor([csf, grey, white])


def grow_ventricles(dice: Dice, fractions: Tensor, depth: Tensor, ranges: ContrastRanges) -> Tensor:
    """Return tissue fractions (3, *shape) whose deep CSF has grown by up to about 4 mm into what surrounds it."""
    if ranges.ventricles[1] == 0:
        return fractions
    near = F.avg_pool3d(fractions[None, :1], (9, 9, 5), 1, (4, 4, 2), count_include_pad=False)[0, 0]
    grown = fractions.clone()
    grown[0] += dice.uniform(ranges.ventricles) * near * ((depth - 10) / 2).sigmoid()
    return grown / grown.sum(0)


def refold(dice: Dice, fractions: Tensor, ranges: ContrastRanges) -> Tensor:
    """Return tissue fractions (3, *shape) sharpened and perturbed: new sulci where the average brain is undecided."""
    shape: Shape3 = tuple(fractions.shape[1:])  # type: ignore[assignment]
    logits = (fractions + 0.01).log()
    noise = dice.smooth(3, shape, dice.uniform(ranges.folding_spacing))
    logits = logits + dice.uniform(ranges.folding) * noise
    return (logits * dice.uniform(ranges.sharpness)).softmax(0)


def tissue_image(
    dice: Dice, fractions: Tensor, residual: Tensor, depth: Tensor, ranges: ContrastRanges
) -> tuple[Tensor, Tensor]:
    """Return an image of the brain (*shape) and the mean intensities (3,) it was made with.

    Args:
        fractions: csf, grey and white, (3, *shape).
        residual: the template's deviation from its tissue means, in units of white minus csf, (*shape).
        depth: millimetres under the brain's surface, (*shape).
    """
    shape: Shape3 = tuple(depth.shape)  # type: ignore[assignment]
    means = tissue_means(dice, ranges)
    csf, grey, white = means
    levels = means[:, None, None, None] * (1 + dice.uniform(ranges.tissue_field) * dice.smooth(3, shape, 25.0))
    deep = ((depth - 26) / 4).sigmoid()
    levels[1] += dice.uniform(ranges.deep_grey) * (white - grey) * deep
    image = (fractions * levels).sum(0)
    image = image + dice.uniform(ranges.texture) * (white - csf) * residual
    return image + dice.uniform(ranges.speckle) * dice.smooth(1, shape, 1.5)[0], means


def monotone(dice: Dice, image: Tensor, means: Tensor) -> Tensor:
    """Return a T1 whose tissue means (3,) were moved to random, equally ordered ones, linear in between."""
    target = tissue_means(dice, ContrastRanges(any_contrast=0.0))
    knots = torch.cat([torch.zeros(1), means, torch.ones(1)])
    values = torch.cat([torch.zeros(1), target, (target[-1:] * dice.uniform((1.02, 1.2)))])
    right = torch.searchsorted(knots, image.contiguous()).clamp(1, len(knots) - 1)
    share = (image - knots[right - 1]) / (knots[right] - knots[right - 1])
    return values[right - 1] + share.clamp(0, 1) * (values[right] - values[right - 1])


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Return the image (*shape) smoothed along its three axes; a sigma under 0.2 voxels does nothing."""
    if sigma < 0.2:
        return image
    x = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    out = image[None, None]
    for axis in range(3):
        size = [1, 1, 1]
        size[axis] = 5
        pad = [0] * 6
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = 2
        out = F.conv3d(F.pad(out, pad, mode="replicate"), kernel.reshape(1, 1, *size))
    return out[0, 0]


def scanner(dice: Dice, image: Tensor, ranges: ContrastRanges) -> Tensor:
    """Return the image (*shape) with a random gamma, blur, bias field and noise, clipped at 0."""
    shape: Shape3 = tuple(image.shape)  # type: ignore[assignment]
    image = image.clamp(0, 1.5) ** dice.uniform(ranges.gamma)
    image = gaussian_blur(image, dice.uniform(ranges.blur))
    field = dice.smooth(1, shape, dice.uniform((50.0, 120.0)))[0]
    image = image * (dice.uniform(ranges.bias) * field).exp()
    sigma = dice.uniform(ranges.noise)
    # The modulus of a complex signal: noise of air is not centred on 0.
    return ((image + sigma * dice.normal(shape)) ** 2 + (sigma * dice.normal(shape)) ** 2).sqrt()
