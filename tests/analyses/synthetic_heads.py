"""Heads to learn on in seconds: background exactly 0, nested ellipsoids, two lateral spheres, noise, a bias field."""

import torch
from torch import Tensor

SIZE, CLASSES = 24, 4


def heads(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return volumes (count, 1, 24, 24, 24), float32, and labels (count, 24, 24, 24): nothing, shell, core, spheres."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    axis = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    volumes, labels = [], []
    for _ in range(count):
        centre = uniform(-0.1, 0.1, 3)[:, None, None, None]
        radii = uniform(0.65, 0.85, 3)[:, None, None, None]
        reach = ((grid - centre) / radii).square().sum(0).sqrt()
        label = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.long)
        label[reach < 1] = 1
        label[reach < float(uniform(0.55, 0.7))] = 2
        for side in (-1, 1):
            middle = centre + torch.tensor([side * 0.3, 0.0, 0.0])[:, None, None, None]
            label[((grid - middle).square().sum(0).sqrt()) < float(uniform(0.14, 0.2))] = 3
        slope = uniform(-0.15, 0.15, 3)[:, None, None, None]
        volume = torch.tensor([0.0, 0.5, 0.9, 0.2])[label] * (1 + (slope * grid).sum(0))
        volume += 0.04 * torch.randn(volume.shape, generator=generator)
        volumes.append(torch.where(label > 0, volume, 0.0)[None])
        labels.append(label)
    return torch.stack(volumes), torch.stack(labels)


def slices(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the 16 middle slices of each head, (16 count, 1, 24, 24), and their labels (16 count, 24, 24)."""
    volumes, labels = heads(count, seed)
    return volumes[:, 0, 4:20].flatten(0, 1)[:, None], labels[:, 4:20].flatten(0, 1)
