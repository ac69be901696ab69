"""Where are the digits of a network lost on one slice? A campaign in memory, and its masks layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from analyses.validation.views import View
from mcaprobe.campaign import Campaign
from mcaprobe.maps import at_elements
from mcaprobe.masks import Elementwise, SnrBelow, Unstable, judged
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.result import Result
from mcaprobe.settings import Settings
from mcaprobe.statistics import IndexMoments, Moments


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a network is perturbed.

    Attributes:
        samples: Perturbed runs n; mode `random`, emulated.
        below: Bits below which an element is unstable.
        seed: Of the samples.
        threads: Samples computed side by side.
        layers: Globs of the layers that are looked at.
    """

    samples: int = 30
    below: float = 1.0
    seed: int = 0
    threads: int = 1
    layers: tuple[str, ...] = ("*",)

    @property
    def criteria(self) -> dict[str, Elementwise]:
        """What makes an element unstable, by a name for the tables; the first one is the main one."""
        return {f"below {self.below:g} bit": Unstable(self.below), "snr below 1": SnrBelow(1.0)}


def probe(
    network: nn.Module, view: View, sampling: Sampling, keep: Sequence[str] = ("*",), observer: Observer | None = None
) -> Result:
    """Return the campaign of a network, stock or converted, on one slice; all stays in memory.

    Args:
        keep: Globs of the layers whose elements keep their moments.
    """
    settings = Settings(
        samples=sampling.samples, seed=sampling.seed, layers=sampling.layers, keep_moments=tuple(keep),
        threads=sampling.threads,
    )  # fmt: skip
    return Campaign(settings, load_model(network), view.input).run(None, observer or Observer())


@dataclass(frozen=True)
class LayerMasks:
    """What a campaign says of the elements of one layer.

    Attributes:
        name, operator: The recorder's.
        unstable: By criterion, bool, the layer's shape (1, C, h, w).
        undefined: Elements that never vary, or were not finite: without digits, hence never below some bits.
        grid: Scale and offset of h and w in the input.
    """

    name: str
    operator: str
    unstable: dict[str, Tensor]
    undefined: Tensor
    grid: list[tuple[float, float]]

    def at(self, image: Tensor, outside: float) -> Tensor:
        """Return an image (H, W) of the input's size at the elements of the layer, (h, w)."""
        return at_elements(image, self.grid, self.undefined.shape, outside)


def layer_masks(run: Result, sampling: Sampling) -> Iterator[LayerMasks]:
    """Yield the masks of each floating layer with image axes."""
    for name in run.manifest["layers"]:
        layer = run[name]
        if layer.is_index or not layer.spatial or not layer.kept:
            continue
        moments = layer.moments
        assert isinstance(moments, Moments)
        found = {key: judged(rule, moments, run.estimator) for key, rule in sampling.criteria.items()}
        first = next(iter(found.values()))
        unstable = {key: marked for key, (marked, _, _) in found.items()}
        yield LayerMasks(name, layer.operator, unstable, first[1], layer.grid_of(layer.shape[2:]))


def changes(run: Result, layer: str) -> Tensor:
    """Return in how many samples the index of each window differs from the IEEE run's, int32, (1, C, H, W)."""
    moments = run[layer].moments
    assert isinstance(moments, IndexMoments)
    return moments.changes
