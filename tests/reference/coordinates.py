"""Where does an element of an output come from?  Measured, not derived: an image of coordinates goes through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def coordinate_image(shape: tuple[int, ...], axis: int) -> Tensor:
    """Return a (1, 1, *shape) float64 image whose every voxel holds its own index along spatial axis `axis`."""
    image = torch.zeros(1, 1, *shape, dtype=torch.float64)
    for index in range(shape[axis]):
        image.select(axis + 2, index).fill_(index)
    return image


def measured_coordinates(run: Callable[[Tensor], Tensor], shape: tuple[int, ...], axis: int) -> Tensor:
    """Return the input coordinate along `axis` of the output elements on a central line along that axis.

    `run` averages with symmetric weights of sum 1, or takes a maximum: half of the difference between the ramp and the
    falling ramp is then the centre of what each output element sees ((max + min) / 2 for a maximum).
    """
    ramp = coordinate_image(shape, axis)
    output = (run(ramp) - run(-ramp)) / 2
    line = output[0, 0]
    for other in range(len(shape) - 1, -1, -1):
        if other != axis:
            line = line.select(other, line.shape[other] // 2)
    return line
