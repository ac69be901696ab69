"""Which image does an input come from, and where does it lie?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ANATOMY = "anatomy.safetensors"


@dataclass(frozen=True)
class Place:
    """The image that the input came from, where there is one.

    Attributes:
        anatomy: (H, W) float32.
        mask: (H, W) bool.
        affine: (4, 4) float64 of the slice as a volume with one voxel along `axis`.
        axis: Axis of the volume that the slice is across.
        space: NIfTI code of the space of the affine.
    """

    anatomy: Tensor
    mask: Tensor
    affine: Tensor
    axis: int
    space: int

    @property
    def plane(self) -> str:
        """The plane of the slice: the volume is stored right, anterior, superior."""
        return ("sagittal", "coronal", "axial")[self.axis]

    @property
    def voxel_size(self) -> tuple[float, float]:
        """Edges of a voxel along H and W in mm."""
        edges = self.affine[:3, :3].norm(dim=0).tolist()
        del edges[self.axis]
        return edges[0], edges[1]

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that `from_state` needs."""
        numbers = torch.tensor([self.axis, self.space])
        return {"anatomy": self.anatomy, "mask": self.mask, "affine": self.affine, "axis_and_space": numbers}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Place":
        axis, space = state["axis_and_space"].tolist()
        return cls(state["anatomy"], state["mask"], state["affine"], axis, space)

    @classmethod
    def of(cls, picture: Any) -> "Place | None":
        """Return the place of an `images.Slice`; None for None."""
        if picture is None:
            return None
        affine = torch.from_numpy(np.array(picture.affine, dtype=np.float64))
        return cls(picture.anatomy, picture.mask, affine, picture.axis, picture.space)
