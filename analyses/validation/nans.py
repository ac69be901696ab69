"""Where does a converted network hold NaN, and which windows of its poolings are ambiguous?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import nanops
from mcaprobe import record
from nanops.accounting import Skipped

INDICES = ".indices"
_WORDS = (torch.uint8, torch.int16, torch.int32)  # of bitmaps of ties; plain indices are int64


@dataclass
class NaNs:
    """What one forward of a converted network left.

    Attributes:
        masks: By layer, where its output is NaN, bool.
        ambiguous: By pooling (the name of its indices), windows that are NaN or have several maxima, bool.
        output: Of the network, after the final policy.
        skipped: What its convolutions skipped.
    """

    masks: dict[str, Tensor] = field(default_factory=dict)
    ambiguous: dict[str, Tensor] = field(default_factory=dict)
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    skipped: Skipped = field(default_factory=lambda: Skipped(False))


@torch.inference_mode()
def nans_of(converted: nn.Module, x: Tensor, layers: Iterable[str]) -> NaNs:
    """Return the NaNs of one forward of a converted network, in the layers of these names."""
    wanted, found = set(layers), NaNs()

    def look(name: str, operator: str, y: Tensor) -> None:
        if name not in wanted:
            return
        if y.is_floating_point():
            found.masks[name] = y.isnan()
        elif name.endswith(INDICES):
            found.ambiguous[name] = several(y) if y.dtype in _WORDS else torch.zeros(y.shape, dtype=torch.bool)

    with record(converted, sink=look):
        converted(x)
    for name, windows in found.ambiguous.items():
        base = name.removesuffix(INDICES)
        values = found.masks.get(base, found.masks.get(f"{base}.0"))
        if values is not None:
            windows |= values
    # Two forwards on purpose. While the recorder sees every call, nanops runs no layer in one piece (its
    # conversion/leaves.py) and settles what waits at each hook: another way than that of a network in use. Output and
    # skipped work are those of a forward with nothing of ours around it but the counters.
    with nanops.count_skipped(converted) as found.skipped:
        found.output = converted(x)
    return found


def several(bitmaps: Tensor) -> Tensor:
    """Return which words have two bits or more: x without its lowest bit is not 0."""
    wide = bitmaps.to(torch.int64)
    return (wide & (wide - 1)) != 0
