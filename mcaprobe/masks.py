"""Which elements of a layer are unstable?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import Class, Estimator
from mcaprobe.moments import CHUNK, Moments
from mcaprobe.significance import score


@dataclass(frozen=True, slots=True)
class Unstable:
    """Class noise, or fewer than `below` significant bits; with below = 0 the class noise alone.

    Elements of the class noise have 0 bits or fewer (-inf where the reference is 0 and a sample is not). Elements that
    are zero, exact or shifted in all samples are stable; those that were NaN or infinite have no bits and are not
    marked either.

    Attributes:
        below: Threshold in bits, finite and at least 0.
    """

    below: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.below) and self.below >= 0):
            raise InputError(f"Expected a threshold of at least 0 bits, got {self.below}.")

    def __str__(self) -> str:
        bits = "bit" if self.below == 1 else "bits"
        return "class noise" if self.below == 0 else f"class noise, or fewer than {self.below:g} significant {bits}"

    def mask(self, m: Moments, estimator: Estimator) -> Tensor:
        """Return where the layer is unstable, bool, its shape."""
        marked = torch.zeros(m.shape, dtype=torch.bool, device=m.reference.device)
        # Chunks: the float64 temporaries of the scores stay small beside the layer.
        for place in torch.arange(marked.numel(), device=marked.device).split(CHUNK):
            bits, codes = score(m.take(place), estimator)
            marked.view(-1)[place] = (codes == Class.NOISE) | (bits < self.below)
        return marked
