"""E2ENet: a 3-D network that fuses the features of neighbouring scales again and again (Wu et al. 2023).

Written from the paper; nothing here is its code. Convolutions are 1 x 3 x 3 behind a shift along depth. Which kernels
of the fusion are active is no matter of the network: `analyses.compress.dsff` masks the weights that FUSION names.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from analyses.models.depth_shift import depth_shift
from analyses.models.nnunet import SLOPE, Size, steps_of
from mcaprobe.errors import InputError

FEATURES = (48, 96, 192, 320, 320, 320)
KERNEL, PADDING, ONE = (1, 3, 3), (0, 1, 1), (1, 1, 1)
# The parameters that dynamic sparse feature fusion masks, as globs over their names.
FUSION = ("nodes.*.units.*.conv.weight", "nodes.*.up.weight")


class Unit(nn.Module):
    """A depth shift, a 1 x 3 x 3 convolution, instance normalisation, leaky ReLU."""

    def __init__(self, channels: int, features: int, stride: tuple[int, ...] = ONE) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, features, KERNEL, stride, PADDING)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm3d(features, eps=1e-5, affine=True)
        self.act = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, features, *size / stride) of x (N, channels, *size)."""
        out: Tensor = self.act(self.norm(self.conv(depth_shift(x))))
        return out


class Node(nn.Module):
    """Features of one scale fused with those of the scales below and above.

    Args:
        features: Of this scale; `below` of the next coarser one, `above` of the next finer one, None at the finest.
        up: Stride from the coarser scale to this one; `down` from this one's finer neighbour to it.
        units: 1, or 2 where the node is the last of its scale.
    """

    def __init__(
        self, features: int, below: int, above: int | None, up: tuple[int, ...], down: tuple[int, ...], units: int
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(below, features, up, up, bias=False)  # type: ignore[arg-type]
        self.down = None if above is None else nn.MaxPool3d(down, down)  # type: ignore[arg-type]
        channels = 2 * features + (above or 0)
        rest = (Unit(features, features) for _ in range(units - 1))
        self.units = nn.Sequential(Unit(channels, features), *rest)

    def forward(self, same: Tensor, coarser: Tensor, finer: Tensor | None) -> Tensor:
        """Return (N, features, *size) of the same scale's features, the coarser one's and the finer one's."""
        flows = [same, self.up(coarser)]
        if self.down is not None:
            flows.append(self.down(finer))
        fused: Tensor = self.units(torch.cat(flows, dim=1))
        return fused


class E2ENet(nn.Module):
    """Segment a volume. x(i, j) is level i after j fusions; fusion j leaves one level less.

    Args:
        channels: Of the input.
        classes: Of the output.
        features: Width of each level, two or more, from the input's resolution down.
        strides: Of each level against the one above, a number or one an axis; the first is 1. By default 1, then 2.
        heads: 1 x 1 x 1 classifiers of the last node of each of so many levels, from the finest; by default of all but
            the two coarsest levels (and at least one), four of six.

    Raises:
        InputError: one of these makes no sense.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 2,
        features: Sequence[int] = FEATURES,
        strides: Sequence[Size] | None = None,
        heads: int | None = None,
    ) -> None:
        super().__init__()
        levels = len(features)
        if levels < 2 or min(*features, channels, classes) < 1:
            raise InputError(f"Expected two levels or more, and channels of 1 or more, got {tuple(features)} between "
                             f"{channels} and {classes}.")  # fmt: skip
        steps = steps_of(3, strides if strides is not None else (1, *(2,) * (levels - 1)))
        if len(steps) != levels or steps[0] != ONE:
            raise InputError(f"Expected {levels} strides, the first of them 1, got {strides}.")
        heads = max(levels - 2, 1) if heads is None else heads
        if not 1 <= heads < levels:
            raise InputError(f"Expected 1 to {levels - 1} heads, got {heads}.")
        self.channels, self.steps = channels, steps
        inputs = (channels, *features)
        self.backbone = nn.ModuleList(
            nn.Sequential(Unit(inputs[i], features[i], step), Unit(features[i], features[i]))
            for i, step in enumerate(steps)
        )
        self.nodes = nn.ModuleDict()
        for j in range(1, levels):
            for i in range(levels - j):
                above = features[i - 1] if i else None
                units = 2 if i + j == levels - 1 else 1
                self.nodes[_name(i, j)] = Node(features[i], features[i + 1], above, steps[i + 1], steps[i], units)
        self.heads = nn.ModuleList(nn.Conv3d(features[i], classes, 1, bias=False) for i in range(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming initialisation for the leaky ReLU, biases 0; normalisations start as identity."""
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits of x (N, channels, D, H, W): in eval mode (N, classes, D, H, W); in training mode a list.

        The list has one for each head, the finest first, head i at the size of level i: deep supervision.

        Raises:
            InputError: x has another shape, or a size that the strides do not divide.
        """
        self._check(x)
        now: list[Tensor] = []
        for stage in self.backbone:
            x = stage(x)
            now.append(x)
        last: list[Tensor] = []  # of each level, from the coarsest that has a node
        for j in range(1, len(self.steps)):
            now = [
                self.nodes[_name(i, j)](now[i], now[i + 1], now[i - 1] if i else None) for i in range(len(now) - 1)
            ]
            last.append(now[-1])
        if not self.training:
            logits: Tensor = self.heads[0](last[-1])
            return logits
        return [head(features) for head, features in zip(self.heads, reversed(last), strict=False)]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.channels:
            raise InputError(f"Expected x of shape (N, {self.channels}, D, H, W), got {tuple(x.shape)}.")
        size = tuple(x.shape[2:])
        for i, step in enumerate(self.steps):
            if any(n == 0 or n % s for n, s in zip(size, step, strict=True)):
                whole = " x ".join(str(prod(axis)) for axis in zip(*self.steps, strict=True))
                raise InputError(f"Expected a size D, H, W of multiples of {whole}, got {tuple(x.shape[2:])}: layer "
                                 f"'backbone.{i}' cannot divide {size} by {step}.")  # fmt: skip
            size = tuple(n // s for n, s in zip(size, step, strict=True))


def _name(level: int, fusion: int) -> str:
    return f"x{level}_{fusion}"
