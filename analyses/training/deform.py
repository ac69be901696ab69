"""Where in the template does each voxel of a synthetic slab come from?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from analyses.training.randomness import Dice, Range, Shape3


@dataclass(frozen=True, slots=True)
class DeformRanges:
    """Bounds of the random deformation; lengths in millimetres, angles in radians."""

    pitch: Range = (-0.35, 0.35)
    roll: Range = (-0.15, 0.15)
    yaw: Range = (-0.15, 0.15)
    size: Range = (0.78, 1.12)  # of the head, relative to the template; brains are smaller than the MNI152
    stretch: Range = (0.92, 1.08)  # of each axis
    shear: Range = (-0.08, 0.08)
    shift: Range = (-16.0, 16.0)  # of the crop, in its plane
    height: Range = (3.0, 158.0)  # of the slab's middle, in the template's voxels
    coarse: tuple[Range, Range] = ((18.0, 45.0), (0.0, 4.5))  # spacing of the knots, amplitude
    fine: tuple[Range, Range] = ((6.0, 12.0), (0.0, 1.4))


def rotation(pitch: float, roll: float, yaw: float) -> Tensor:
    """Return the rotation matrix (3, 3) about x, then y, then z."""
    p, r, w = torch.tensor([pitch, roll, yaw])
    one, zero = torch.tensor(1.0), torch.tensor(0.0)
    x = torch.stack([one, zero, zero, zero, p.cos(), -p.sin(), zero, p.sin(), p.cos()]).reshape(3, 3)
    y = torch.stack([r.cos(), zero, r.sin(), zero, one, zero, -r.sin(), zero, r.cos()]).reshape(3, 3)
    z = torch.stack([w.cos(), -w.sin(), zero, w.sin(), w.cos(), zero, zero, zero, one]).reshape(3, 3)
    return z @ y @ x


def plane_coordinates(shape: Shape3, centre: tuple[float, float, float]) -> Tensor:
    """Return the undeformed coordinates (3, *shape) of an axial slab whose middle voxel lies at `centre`."""
    axes = [torch.arange(n) - (n - 1) // 2 + c for n, c in zip(shape, centre, strict=True)]
    return torch.stack(torch.meshgrid(*[a.float() for a in axes], indexing="ij"))


def random_coordinates(dice: Dice, shape: Shape3, centre: tuple[float, float, float], ranges: DeformRanges) -> Tensor:
    """Return the template coordinates (3, *shape), in voxels, of a randomly placed, turned and bent axial slab."""
    local = plane_coordinates(shape, (0.0, 0.0, 0.0))
    local[0] += dice.uniform(ranges.shift)
    local[1] += dice.uniform(ranges.shift)
    if dice.happens(0.5):
        local[0] = -local[0]
    matrix = rotation(dice.uniform(ranges.pitch), dice.uniform(ranges.roll), dice.uniform(ranges.yaw))
    stretch = dice.uniforms(ranges.stretch, 3) * dice.uniform(ranges.size)
    shear = torch.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = dice.uniforms(ranges.shear, 3)
    bent = local
    for spacing, amplitude in (ranges.coarse, ranges.fine):
        bent = bent + dice.uniform(amplitude) * dice.smooth(3, shape, dice.uniform(spacing))
    turned = torch.einsum("ij,jxyz->ixyz", matrix @ shear @ torch.diag(1 / stretch), bent)
    middle = torch.tensor([centre[0], centre[1], dice.uniform(ranges.height)])
    return turned + middle[:, None, None, None]


def sample(fields: Tensor, coordinates: Tensor, nearest: bool = False) -> Tensor:
    """Return the fields (C, X, Y, Z) at coordinates (3, *shape) in voxels: (C, *shape), trilinear or nearest.

    Beyond its edge the template goes on with its last voxel.
    """
    size = torch.tensor(fields.shape[1:]).float()[:, None, None, None]
    grid = (coordinates * 2 / (size - 1) - 1).flip(0).permute(1, 2, 3, 0)[None]
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(fields[None].float(), grid, mode=mode, padding_mode="border", align_corners=True)[0]
