"""The FasterFusion block in its three forms (Heinrich and Hagenah, Make nnUNets Small Again, MIDL 2024).

A spatial convolution sees the first floor(c_i / g) channels, a pointwise one the rest. In training form both widen to
2 c_o channels, behind which follow batch norm and a pointwise convolution to c_o; nothing there is nonlinear, so that
all of it can become two convolutions whose results are added. The folded form only puts batch norm into the last
convolution and has the fewest parameters. Nothing here is the authors' code.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Self

import torch
from torch import Tensor, nn

from analyses.models.fasterfusion_nans import Convolution, joint_branches
from analyses.models.nnunet import POOL, SLOPE, Size
from mcaprobe.errors import InputError

WIDTH = 3  # of the spatial kernel, on every axis
RATIO = 4  # the paper's: a quarter of the channels is spatial
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True, slots=True)
class Channels:
    """How many channels a block has, and how many of them are spatial.

    Args:
        inputs, outputs: Of the block: c_i and c_o.
        spatial_inputs: p, the first channels of the input, which the spatial convolution reads.
        spatial_outputs: q, those that it makes in training form, of 2 c_o; None in fused form, which does not show it.

    Raises:
        InputError: a spatial convolution without inputs or outputs, or a pointwise one with only one of them.
    """

    inputs: int
    outputs: int
    spatial_inputs: int
    spatial_outputs: int | None

    def __post_init__(self) -> None:
        p, q, i, wide = self.spatial_inputs, self.spatial_outputs, self.inputs, 2 * self.outputs
        if not 1 <= p <= i or (q is not None and not (1 <= q <= wide and (p == i) == (q == wide))):
            raise InputError(f"Expected from 1 to {i} spatial inputs and from 1 to {wide} spatial outputs, all of both "
                             f"or some of both, got {p} and {q}.")  # fmt: skip

    @classmethod
    def split(cls, inputs: int, outputs: int, ratio: int = RATIO) -> Self:
        """Return p = floor(c_i / g) and q = 2 floor(c_o / g); for g = 1 there is no pointwise branch.

        Raises:
            InputError: a ratio that leaves nothing to the spatial convolution.
        """
        most = min(inputs, outputs)
        if not isinstance(ratio, int) or not 1 <= ratio <= most:
            raise InputError(f"Expected a ratio from 1 to {most}, the smaller number of channels of {inputs} inputs "
                             f"and {outputs} outputs, got {ratio!r}.")  # fmt: skip
        return cls(inputs, outputs, inputs // ratio, 2 * (outputs // ratio))

    @property
    def rest(self) -> int:
        """The channels that the pointwise convolution reads."""
        return self.inputs - self.spatial_inputs


class Block(nn.Module):
    """What the three forms share: two branches, how they are put together, leaky ReLU and, with a stride, a max-pool.

    The max-pool has kernel = stride and rounds up: the size is that of the strided convolution of width 3 and padding 1
    that the block stands for.

    Args:
        dims: 2 or 3.
        channels: Of the block.
        stride: A number or one an axis.

    Attributes:
        nan_threshold: None, or in (0, 1] the share of NaN in the windows of both branches together from which on an
            output is NaN (fasterfusion_nans.py).

    Raises:
        InputError: one of these makes no sense.
    """

    def __init__(self, dims: int, channels: Channels, stride: Size = 1) -> None:
        super().__init__()
        if dims not in BATCH_NORM:
            raise InputError(f"Expected 2 or 3 dims, got {dims}.")
        steps = (stride,) * dims if isinstance(stride, int) else tuple(stride)
        if len(steps) != dims or min(steps) < 1:
            raise InputError(f"Expected a stride of 1 or more, one or {dims}, got {stride}.")
        self.dims, self.channels, self.stride = dims, channels, steps
        self.nan_threshold: float | None = None
        spatial, pointwise = self._branch_outputs()
        self.spatial = _convolution(dims, channels.spatial_inputs, spatial, WIDTH)
        self.pointwise = _convolution(dims, channels.rest, pointwise, 1) if channels.rest else None
        self._add_combination()
        self.act = nn.LeakyReLU(SLOPE)
        pools = prod(steps) > 1
        self.pool = POOL[dims](steps, steps, ceil_mode=True) if pools else nn.Identity()  # type: ignore[arg-type]
        self.reset_parameters()

    def _branch_outputs(self) -> tuple[int, int]:
        """Return the output channels of the spatial and of the pointwise branch."""
        q = self.channels.spatial_outputs
        if q is None:
            raise InputError("Expected the spatial outputs of a block that is not fused, got None.")
        return q, 2 * self.channels.outputs - q

    def _add_combination(self) -> None:
        """Add the layers behind the branches."""

    def combine(self, parts: list[Tensor]) -> Tensor:
        """Return what comes before the activation, (N, c_o, *size), from the results of the branches."""
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Kaiming initialisation for the leaky ReLU, biases 0, batch norm as identity."""
        for module in self.children():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, c_o, *ceil(size / stride)) of x (N, c_i, *size).

        Raises:
            InputError: x has another shape.
        """
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels.inputs:
            axes = ", ".join("DHW"[-self.dims :])
            raise InputError(f"Expected x of shape (N, {self.channels.inputs}, {axes}), got {tuple(x.shape)}.")
        if self.nan_threshold is not None:  # whatever x has: a campaign needs the same operations in each sample
            parts, skipped = joint_branches(x, self.spatial, self.pointwise, self.nan_threshold)
            y = torch.where(skipped, torch.nan, self.combine(parts))
        else:
            p = self.channels.spatial_inputs
            parts = [self.spatial(x[:, :p])]
            if self.pointwise is not None:
                parts.append(self.pointwise(x[:, p:]))
            y = self.combine(parts)
        out: Tensor = self.pool(self.act(y))
        return out


class TrainingBlock(Block):
    """The form that is trained: both branches, concatenated, batch norm, a pointwise convolution."""

    def _add_combination(self) -> None:
        wide = 2 * self.channels.outputs
        self.norm = BATCH_NORM[self.dims](wide)
        self.last = _convolution(self.dims, wide, self.channels.outputs, 1)

    def combine(self, parts: list[Tensor]) -> Tensor:
        """Return last(norm(both))."""
        out: Tensor = self.last(self.norm(torch.cat(parts, dim=1)))
        return out


class FoldedBlock(Block):
    """The smallest form: batch norm is in the last convolution."""

    def _add_combination(self) -> None:
        self.last = _convolution(self.dims, 2 * self.channels.outputs, self.channels.outputs, 1)

    def combine(self, parts: list[Tensor]) -> Tensor:
        """Return last(both)."""
        out: Tensor = self.last(torch.cat(parts, dim=1))
        return out


class FusedBlock(Block):
    """The form with the fewest layers and no 2 c_o channels between: the sum of what both branches make.

    For c_i = c_o it has more parameters and multiply-accumulates than the folded one: 7.5 c^2 against 6.5 c^2 in 3-D.
    """

    def _branch_outputs(self) -> tuple[int, int]:
        self.channels = replace(self.channels, spatial_outputs=None)
        return self.channels.outputs, self.channels.outputs

    def combine(self, parts: list[Tensor]) -> Tensor:
        """Return their sum."""
        return parts[0] + parts[1] if len(parts) == 2 else parts[0]


def _convolution(dims: int, inputs: int, outputs: int, width: int) -> Convolution:
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, outputs, width, padding=width // 2)


FORMS: dict[str, type[Block]] = {"training": TrainingBlock, "folded": FoldedBlock, "fused": FusedBlock}
