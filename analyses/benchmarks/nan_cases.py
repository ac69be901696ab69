"""Which convolutions and poolings are timed, on which patterns of NaN, and how fast must they be?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

SMOOTH = {1: torch.nn.functional.avg_pool1d, 2: torch.nn.functional.avg_pool2d, 3: torch.nn.functional.avg_pool3d}


@dataclass(frozen=True, slots=True)
class Case:
    """One convolution, padded to keep its size, stride 1.

    Args:
        least: Smallest accepted speed-up by pattern; other patterns are only shown.
    """

    name: str
    batch: int
    inputs: int
    outputs: int
    size: tuple[int, ...]
    kernel: int
    groups: int = 1
    least: dict[str, float] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        """Axes of the image."""
        return len(self.size)

    def operands(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x without NaN, weight and bias."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.outputs, self.inputs // self.groups, *(self.kernel,) * self.dims)
        x = torch.randn(self.batch, self.inputs, *self.size, generator=generator)
        weight = torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5
        return x, weight, torch.randn(self.outputs, generator=generator)


def _clustered(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return whole pixels in blobs, as empty background is: the lowest of a smoothed random field."""
    width = {2: 21, 3: 11}[x.ndim - 2]
    noise = torch.randn((x.shape[0], 1, *x.shape[2:]), generator=generator)
    for _ in range(3):
        noise = SMOOTH[x.ndim - 2](noise, width, 1, width // 2)  # type: ignore[operator]
    return (noise < noise.flatten().quantile(share)).expand_as(x)


def _elements(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return single elements, each with the same probability."""
    return torch.rand(x.shape, generator=generator) < share


PATTERNS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], float]] = {
    "no NaN": (_elements, 0.0),
    "clustered 40 %": (_clustered, 0.4),
    "clustered 70 %": (_clustered, 0.7),
    "scattered 5 %": (_elements, 0.05),
    "iid 33 %": (_elements, 0.33),
    "iid 50 %": (_elements, 0.5),
    "iid 75 %": (_elements, 0.75),
    "iid 90 %": (_elements, 0.9),
}


def with_nan(x: Tensor, pattern: str, seed: int) -> Tensor:
    """Return a copy of x with NaN where the pattern puts it."""
    where, share = PATTERNS[pattern]
    if not share:
        return x.clone()
    return torch.where(where(x, share, torch.Generator().manual_seed(seed + 1)), torch.nan, x)


def _least(none: float, forty: float, seventy: float, scattered: float) -> dict[str, float]:
    return {"no NaN": none, "clustered 40 %": forty, "clustered 70 %": seventy, "scattered 5 %": scattered}


CASES = (
    Case("5x5 64->64, 256x256", 1, 64, 64, (256, 256), 5, least=_least(0.97, 1.6, 3.1, 0.9)),
    Case("3x3 64->64, 128x128", 1, 64, 64, (128, 128), 3, least=_least(0.97, 1.45, 2.6, 0.9)),
    Case("3x3 64->128, 4 x 64x64", 4, 64, 128, (64, 64), 3, least=_least(0.97, 1.5, 2.8, 0.9)),
    Case("3x3x3 32->32, 48x48x48", 1, 32, 32, (48, 48, 48), 3, least=_least(0.97, 1.3, 2.3, 0.7)),
    Case("3x3 16->32, 256x256", 1, 16, 32, (256, 256), 3, least=_least(0.90, 1.15, 1.9, 0.7)),
    Case("1x1 128->64, 128x128", 1, 128, 64, (128, 128), 1,
         least={"no NaN": 0.90, "clustered 40 %": 1.5, "clustered 70 %": 2.1}),
    Case("depthwise 3x3 128, 128x128", 1, 128, 128, (128, 128), 3, 128, least={"no NaN": 0.80}),
)  # fmt: skip
CASE_PATTERNS = ("no NaN", "clustered 40 %", "clustered 70 %", "scattered 5 %", "iid 50 %")

# The paper's Figure 3: random NaN, threshold 1/2, growing images; here against torch's own convolution.
GROWING = tuple(Case(f"3x3 64->64, {n}x{n}", 1, 64, 64, (n, n), 3) for n in (32, 64, 128, 256))
GROWING_PATTERNS = ("iid 33 %", "iid 50 %", "iid 75 %", "iid 90 %")
