"""Random numbers and random smooth fields from an explicit generator."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Range = tuple[float, float]
Shape3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Dice:
    """A generator with the few draws that the augmentation needs. The same key gives the same draws."""

    generator: torch.Generator

    @classmethod
    def of(cls, *key: int) -> "Dice":
        """Return the dice of a key of non-negative integers (a seed and the index of a sample, say)."""
        state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        return cls(torch.Generator().manual_seed(state))

    def uniform(self, bounds: Range) -> float:
        """Return one number, uniform in the bounds."""
        low, high = bounds
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def uniforms(self, bounds: Range, n: int) -> Tensor:
        """Return (n,) numbers, uniform in the bounds."""
        low, high = bounds
        return low + (high - low) * torch.rand(n, generator=self.generator)

    def happens(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(torch.rand((), generator=self.generator)) < probability

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def smooth(self, channels: int, shape: Shape3, spacing: float) -> Tensor:
        """Return smooth noise (channels, *shape): normal numbers every `spacing` voxels, trilinear in between.

        Their lattice is shifted at random, so that no voxel is special.
        """
        weights = [self._interpolation(n, spacing) for n in shape]
        coarse = self.normal((channels, *(w.shape[1] for w in weights)))
        x, y, z = weights
        # Along one axis after another: a hundred times faster than sampling a volume.
        coarse = torch.matmul(y, torch.matmul(coarse, z.T))
        return torch.matmul(x, coarse.flatten(2)).reshape(channels, *shape)

    def _interpolation(self, n: int, spacing: float) -> Tensor:
        """Return the weights (n, knots) that interpolate n voxels linearly from randomly shifted knots."""
        knots = int(np.ceil(n / spacing)) + 2
        position = self.uniform((0.0, 1.0)) + torch.arange(n) / spacing
        return (1 - (position[:, None] - torch.arange(knots)).abs()).clamp(min=0)
