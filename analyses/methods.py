"""The ways to run a network that are compared: torch's own, and its conversions."""

from dataclasses import dataclass

from torch import Generator, nn

import nanops
from nanops import Tolerance
from nanops.tolerance import PAPER


@dataclass(frozen=True, slots=True)
class Method:
    """Options of a conversion; approach A is fill `mean`, approach B `max_normal` (section 5 of the paper)."""

    pooling: str | None
    threshold: float
    uniform: bool = False
    fill: str = "mean"
    tolerance: Tolerance = PAPER

    @property
    def name(self) -> str:
        """A key, unique among the methods of an experiment."""
        return f"{self.pooling} {self.threshold} {self.uniform} {self.fill} {self.tolerance}"

    @property
    def columns(self) -> dict[str, object]:
        """What a row says of the method."""
        return {"pooling": self.pooling or "", "threshold": self.threshold, "uniform": self.uniform, "fill": self.fill}

    def convert(self, network: nn.Module, seed: int = 0, final: str = "zero") -> nn.Module:
        """Return the network converted; the draws of approach B are those of the seed."""
        generator = Generator().manual_seed(seed) if self.fill == "max_normal" else None
        return nanops.convert(
            network, self.pooling, self.threshold, self.fill, self.tolerance, uniform=self.uniform, final=final,
            generator=generator,
        )  # fmt: skip


STOCK = "stock"
CONSERVATIVE = tuple(Method("conservative", t) for t in (1.0, 0.8, 0.5, 0.4))
AGGRESSIVE = tuple(Method("aggressive", t) for t in (1.0, 0.8, 0.5, 0.4))
HYBRID = tuple(Method("hybrid", t) for t in (1.0, 0.5, 0.4))
