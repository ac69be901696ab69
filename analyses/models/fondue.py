"""FONDUE: a nested U-Net that denoises a slice of any voxel size (Adame-Gonzalez et al. 2023).

Nothing here is FONDUE's code; it follows the architecture of FONDUE_LT (version 1.1) as its description has it, with
the names of the published parameters, among them four (lambda) and two heads (final5, final6) that nothing uses.
"""

from collections.abc import Sequence
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcaprobe.errors import InputError

DEEPEST = 6
MULTIPLE = 2 ** (DEEPEST - 1)
# In the published code the fourth head serves the nodes x0_5 and x0_6 as well, and the weights were trained so.
SHARED_HEADS = 4
LAMBDAS = 4  # parameters that the published files hold and nothing uses


class CompetitiveBlock(nn.Module):
    """Three 3x3 convolutions with one PReLU; before the third, each output competes with its input."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1)
        self.conv3 = nn.Conv2d(filters, filters, 3, padding=1)
        self.relu1 = nn.PReLU()

    def finish(self, x: Tensor) -> Tensor:
        """Return what the second and the third convolution make of the first one's output."""
        return self.last(self.conv2(self.relu1(x)), x)

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        """Return what the third convolution makes of the larger one of two."""
        out: Tensor = self.conv3(self.relu1(torch.maximum(y, x)))
        return out


class InputBlock(CompetitiveBlock):
    """The node x0_0: the first convolution sees the slices as they are; its PReLU competes with the second one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x (N, channels, H, W)."""
        x = self.relu1(self.conv1(x))
        return self.last(self.conv2(x), x)


class EncoderBlock(CompetitiveBlock):
    """The nodes x1_0 to x6_0."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x of the same shape."""
        return self.finish(torch.maximum(self.conv1(self.relu1(x)), x))


class NestedBlock(EncoderBlock):
    """All other nodes: a block of the largest among the level's earlier nodes and what comes up from below."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, below: Tensor, indices: Tensor | None, *earlier: Tensor) -> Tensor:  # type: ignore[override]
        """Return (N, filters, H, W).

        Args:
            below: The node x(i+1,j-1).
            indices: Those of the pooling of x(i,0); None at level 0, where a bilinear resize stands for the unpooling.
            earlier: The nodes x(i,0) to x(i,j-1), each (N, filters, H, W).
        """
        size = list(earlier[0].shape[-2:])
        up = resize(below, size) if indices is None else self.unpool(below, indices, output_size=size)
        for node in earlier:
            up = torch.maximum(up, node)
        return super().forward(up)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return x resampled bilinearly (align_corners False) to (N, C, *size)."""
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)


def inner_size(size: Sequence[int], zoom: float) -> list[int]:
    """Return the height and the width of level 1, 32 round(n / f / 32 + 1) for f = 1 / zoom; halves go to even."""
    return [MULTIPLE * round(n / (1 / zoom) / MULTIPLE + 1) for n in size]


class FONDUE(nn.Module):
    """Denoise the middle one of several adjacent slices, whose intensities are in [0, 1].

    The node x(i,j) of level i (0 to 6) and column j (0 to 6 - i) is the block `convi_j`. Level 0 has the resolution of
    the input; level 1 has that of `inner_size`, whatever the input's; from there each level has half of the one above.

    Args:
        slices: Adjacent slices that come in as channels (7 in the paper).
        filters: Width of every block (64 in the paper).
        outputs: Channels of the residual.
        alpha: Weights of the heads of x0_1 to x0_6, of which the residual is the weighted mean; they are learnt.
        shared_heads: Whether x0_5 and x0_6 use the head of x0_4, as in the published code, or their own.

    Raises:
        InputError: an even number of slices has no middle one; or the weights are not 6, or not positive in sum.
    """

    def __init__(
        self,
        slices: int = 7,
        filters: int = 64,
        outputs: int = 1,
        alpha: Sequence[float] = (1 / DEEPEST,) * DEEPEST,
        shared_heads: bool = True,
    ) -> None:
        super().__init__()
        if slices < 1 or slices % 2 == 0:
            raise InputError(f"Expected an odd number of slices, got {slices}.")
        if len(alpha) != DEEPEST or not 0 < sum(alpha) < float("inf"):
            raise InputError(f"Expected {DEEPEST} weights of heads with a positive sum, got {tuple(alpha)}.")
        self.slices, self.shared_heads = slices, shared_heads
        for k in range(1, LAMBDAS + 1):
            self.register_parameter(f"lambda_{k}", nn.Parameter(torch.full((1,), 1 / LAMBDAS)))
        for k, weight in enumerate(alpha, 1):
            self.register_parameter(f"alpha_{k}", nn.Parameter(torch.full((1,), float(weight))))
        self.conv0_0 = InputBlock(slices, filters)
        for level in range(1, DEEPEST + 1):
            self.add_module(f"conv{level}_0", EncoderBlock(filters))
        for column in range(1, DEEPEST + 1):
            for level in range(DEEPEST + 1 - column):
                self.add_module(f"conv{level}_{column}", NestedBlock(filters))
        # ceil_mode never cuts in: level 1 is a multiple of 32. It is kept from the description.
        self.pools = nn.ModuleDict(
            {f"x{level}_0": nn.MaxPool2d(2, 2, ceil_mode=True, return_indices=True) for level in range(1, DEEPEST)}
        )
        for k in range(1, DEEPEST + 1):
            self.add_module(f"final{k}", nn.Conv2d(filters, outputs, 1))

    def node(self, level: int, column: int) -> nn.Module:
        """Return the block of the node x(level, column)."""
        return self.get_submodule(f"conv{level}_{column}")

    def forward(self, x: Tensor, zoom: float = 1.0, residual: bool = False) -> Tensor:
        """Return the denoised middle slice, hardtanh(middle - residual) in [0, 1], or the residual itself.

        Args:
            x: Slices as channels, (N, slices, H, W), of any height and width.
            zoom: Size of the pixels in mm: 1 / f, so that level 1 has about one pixel a mm.
            residual: Whether to return the residual, the noise that is subtracted.

        Returns:
            (N, outputs, H, W).

        Raises:
            InputError: x has another number of slices, or the zoom is not positive.
        """
        if x.ndim != 4 or x.shape[1] != self.slices:
            raise InputError(f"Expected x of shape (N, {self.slices}, H, W), got {tuple(x.shape)}.")
        if not (zoom > 0 and isfinite(zoom)):
            raise InputError(f"Expected a positive zoom, got {zoom}.")
        levels, indices = self.encode(x, inner_size(x.shape[-2:], zoom))
        for column in range(1, DEEPEST + 1):
            for level in range(DEEPEST + 1 - column):
                below = levels[level + 1][column - 1]
                node = self.node(level, column)(below, indices[level], *levels[level])
                levels[level].append(node)
        noise = self.weigh(levels[0][1:])
        middle = self.slices // 2
        return noise if residual else F.hardtanh(x[:, middle : middle + 1] - noise, 0.0, 1.0)

    def encode(self, x: Tensor, inner: Sequence[int]) -> tuple[list[list[Tensor]], list[Tensor | None]]:
        """Return the nodes x(i,0), each in a list of its level, and the indices of their poolings (None at level 0)."""
        node = self.conv0_0(x)
        levels: list[list[Tensor]] = [[node]]
        indices: list[Tensor | None] = [None]
        node = resize(node, inner)
        for level in range(1, DEEPEST):
            node = self.node(level, 0)(node)
            levels.append([node])
            node, places = self.pools[f"x{level}_0"](node)
            indices.append(places)
        levels.append([self.node(DEEPEST, 0)(node)])
        return levels, indices

    def weigh(self, nodes: Sequence[Tensor]) -> Tensor:
        """Return the mean, weighted by alpha, of what the heads make of x0_1 to x0_6."""
        most = SHARED_HEADS if self.shared_heads else DEEPEST
        alphas = [self.get_parameter(f"alpha_{k}") for k in range(1, DEEPEST + 1)]
        heads = [self.get_submodule(f"final{min(k, most)}") for k in range(1, DEEPEST + 1)]
        noise: Tensor = alphas[0] * heads[0](nodes[0])
        # One term after the other: a torch.sum would put 0 for a NaN.
        for alpha, head, node in zip(alphas[1:], heads[1:], nodes[1:], strict=True):
            noise = noise + alpha * head(node)
        total: Tensor = alphas[0]
        for alpha in alphas[1:]:
            total = total + alpha
        return noise / total
