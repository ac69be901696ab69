"""The task of the paper's FONDUE: remove noise from slices of real brains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analyses.brains import TRAIN, VALIDATION, Brain, load_learnt
from analyses.models.fondue import FONDUE
from analyses.preprocessing.planes import AXES, CONTEXT, filled, thick_slices
from analyses.training.loop import Pair, Settings
from analyses.training.randomness import Dice, Range

FILTERS = 16


@dataclass(frozen=True, slots=True)
class DenoiserSettings(Settings):
    """What decides the bits of the denoiser, apart from the machine."""

    filters: int = FILTERS
    size: int = 96  # height and width of the crops
    noise: Range = (0.01, 0.08)  # standard deviation, of intensities in [0, 1]


class Denoise:
    """Noisy slices in all three planes, and the clean middle one."""

    def __init__(self, settings: DenoiserSettings, brains: Mapping[str, Brain] | None = None) -> None:
        self.settings, self._given = settings, brains

    @cached_property
    def brains(self) -> Mapping[str, Brain]:
        """The subjects of training and validation, by name."""
        return load_learnt() if self._given is None else self._given

    @cached_property
    def places(self) -> list[tuple[str, str, int]]:
        """Subject, plane and slice of all that is learnt from."""
        names = [name for name in TRAIN if name in self.brains]
        return [(name, plane, i) for name in names for plane in AXES for i in self._inside(name, plane)]

    def _inside(self, name: str, plane: str) -> list[int]:
        return torch.nonzero(filled(self.brains[name].image, plane)).flatten().tolist()

    def network(self) -> nn.Module:
        """Return the network with random weights."""
        return FONDUE(filters=self.settings.filters)

    def batch(self, step: int) -> Pair:
        """Return noisy slices (N, 7, H, W) and clean ones (N, 1, H, W)."""
        s = self.settings
        pairs = [self._sample(Dice.of(s.seed, k)) for k in range(step * s.batch, (step + 1) * s.batch)]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def _sample(self, dice: Dice) -> Pair:
        s = self.settings
        name, plane, i = self.places[int(dice.uniform((0, len(self.places))))]
        clean = thick_slices(self.brains[name].image, plane, [i])[0]
        inside = torch.nonzero(clean[CONTEXT])
        at = inside[int(dice.uniform((0, len(inside))))]  # a pixel of the brain somewhere in the crop
        top, left = (
            min(max(int(p) - int(dice.uniform((0, s.size))), 0), n - s.size)
            for p, n in zip(at, clean.shape[1:], strict=True)
        )
        crop = clean[:, top : top + s.size, left : left + s.size]
        if dice.happens(0.5):
            crop = crop.transpose(1, 2)
        flips = [axis for axis in (1, 2) if dice.happens(0.5)]
        crop = crop.flip(flips).contiguous()
        return noisy(dice, crop, dice.uniform(s.noise)), crop[CONTEXT : CONTEXT + 1]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference."""
        return F.l1_loss(output, target)

    def validation(self) -> Iterator[Pair]:
        """Yield sixteen whole axial slices of the validation subjects, one at a time, with middling noise."""
        sigma = sum(self.settings.noise) / 2
        for name in VALIDATION:
            indices = self._inside(name, "axial")
            for i in indices[:: max(1, len(indices) // 16)]:
                clean = thick_slices(self.brains[name].image, "axial", [i])[0]
                yield noisy(Dice.of(self.settings.seed, 1, i), clean, sigma)[None], clean[None, CONTEXT : CONTEXT + 1]


def noisy(dice: Dice, clean: Tensor, sigma: float) -> Tensor:
    """Return intensities with the noise of a magnitude image (Rician); zeros, which are no brain, stay zeros.

    Gudbjartsson and Patz, Magnetic Resonance in Medicine 1995.

    Args:
        clean: In [0, 1], of any shape.
        sigma: Standard deviation of real and imaginary part.
    """
    real, imaginary = (sigma * dice.normal(tuple(clean.shape)) for _ in range(2))
    return torch.where(clean > 0, ((clean + real) ** 2 + imaginary**2).sqrt().clamp(0, 1), 0.0)
