"""In which ways is a volume segmented: converted how, and which part of it does the network see?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from analyses.experiments.counting import Row
from analyses.methods import STOCK, Method
from analyses.models.fastsurfer import MULTIPLE
from analyses.preprocessing.planes import from_plane, slices_of, thick_slices, to_plane

MARGIN = 16  # voxels around the brain, at least
BEST = Method("conservative", 0.5, uniform=True)  # of those that keep every label
METHODS = (
    None, Method("conservative", 0.5), Method(None, 0.5, uniform=True), BEST, Method("hybrid", 0.5),
    Method("hybrid", 0.5, uniform=True),
)  # fmt: skip
Box = tuple[slice, slice]
EVERYTHING, NO_EMPTY, BOX = "all of it", "without empty slices", "the brain's box"
VOLUMES = {(False, False): EVERYTHING, (False, True): NO_EMPTY, (True, False): BOX, (True, True): f"{BOX}, {NO_EMPTY}"}


@dataclass(frozen=True, slots=True)
class Way:
    """A method, and what it is given.

    Attributes:
        method: None is torch's own network.
        cropped: Whether each slice is cropped to the brain's box; all outside is background.
        skipping: Whether empty slices are background without a forward.
    """

    method: Method | None
    cropped: bool = False
    skipping: bool = False

    @property
    def columns(self) -> Row:
        """What a row says of it."""
        threshold = None if self.method is None or self.method.pooling is None else self.method.threshold
        volume = VOLUMES[self.cropped, self.skipping]
        return {"method": name_of(self.method), "threshold": threshold, "volume": volume}


def ways(methods: Sequence[Method | None] = METHODS) -> list[Way]:
    """Return every method on every part of the volume."""
    return [Way(method, *volume) for volume, method in product(VOLUMES, methods)]


def name_of(method: Method | None) -> str:
    """Return a method's name in a row, such as "conservative, uniform windows"."""
    if method is None:
        return STOCK
    return ", ".join([*([method.pooling] if method.pooling else []), *(["uniform windows"] if method.uniform else [])])


def box_of(image: Tensor, plane: str) -> Box:
    """Return the rows and columns of a plane around all voxels above 0 of a volume (L, I, A), with a margin.

    The box begins and ends on the grid of the deepest pooling: every window holds the pixels that it had.
    """
    seen = (slices_of(image, plane) > 0).any(0)
    return _span(seen.any(1)), _span(seen.any(0))


def _span(seen: Tensor) -> slice:
    at = torch.nonzero(seen).flatten().tolist() or [0, len(seen) - 1]
    low, high = at[0] - MARGIN, at[-1] + 1 + MARGIN
    return slice(max(0, low // MULTIPLE * MULTIPLE), min(len(seen), -(-high // MULTIPLE) * MULTIPLE))


def segment(
    network: nn.Module, image: Tensor, plane: str, indices: Sequence[int], box: Box | None = None,
    layout: torch.memory_format = torch.channels_last,
) -> Tensor:  # fmt: skip
    """Return the classes (N, H, W) of some slices of a volume (L, I, A), uint8.

    Args:
        box: What the network sees of each slice; outside is background.
        layout: Of the network's input.
    """
    if box is None:
        return _classes(network, image, plane, indices, layout)
    planes = to_plane(image, plane)
    labels = torch.zeros(len(indices), *planes.shape[:2], dtype=torch.uint8)
    labels[:, *box] = _classes(network, from_plane(planes[box], plane), plane, indices, layout)
    return labels


def segment_contiguous(stock: nn.Module, image: Tensor, plane: str, indices: Sequence[int]) -> list[Tensor]:
    """Return the classes (H, W) of slices by torch's own network in contiguous layout, which it leaves again."""
    stock.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    labels = [segment(stock, image, plane, [i], layout=torch.contiguous_format)[0] for i in indices]
    stock.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return labels


def _classes(
    network: nn.Module, image: Tensor, plane: str, indices: Sequence[int], layout: torch.memory_format
) -> Tensor:
    logits: Tensor = network(thick_slices(image, plane, indices).contiguous(memory_format=layout))
    return logits.argmax(1).to(torch.uint8)
