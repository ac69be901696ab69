"""FastSurferVINN: a competitive dense U-Net with a voxel-size independent inner resolution.

Henschel et al., FastSurferVINN (NeuroImage 2022). Module names are those of the published checkpoints.
Nothing here is FastSurfer's code; it follows the architecture as the paper and its state dicts describe it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4
MULTIPLE = 2**LEVELS


class DenseBlock(nn.Module):
    """Four 3x3 convolutions, each followed by a batch normalisation, with one PReLU; subclasses say how they join.

    The published names of the normalisations are bn1..bn4, in the input and the output block gn1..gn4; bn0
    normalises the input where a block has it.
    """

    def __init__(self, channels: int, filters: int, norm: str = "bn", input_norm: bool = False) -> None:
        super().__init__()
        self.norm = norm
        if input_norm:
            self.bn0 = nn.BatchNorm2d(channels)
        for i in range(4):
            self.add_module(f"conv{i}", nn.Conv2d(filters if i else channels, filters, 3, padding=1))
            self.add_module(f"{norm}{i + 1}", nn.BatchNorm2d(filters))
        self.prelu = nn.PReLU()

    def convolve(self, i: int, x: Tensor) -> Tensor:
        """Return the normalised output of convolution i (0 to 3), (N, filters, H, W)."""
        out: Tensor = getattr(self, f"{self.norm}{i + 1}")(getattr(self, f"conv{i}")(x))
        return out

    def compete(self, i: int, x: Tensor) -> Tensor:
        """Return the larger one of x and what convolution i makes of its PReLU, elementwise."""
        return torch.maximum(self.convolve(i, self.prelu(x)), x)


class InputDenseBlock(DenseBlock):
    """Normalise the input and convolve it; two convolutions compete with their inputs; the fourth does not."""

    def __init__(self, channels: int, filters: int, norm: str = "bn") -> None:
        super().__init__(channels, filters, norm, input_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x (N, channels, H, W)."""
        x = self.convolve(0, self.bn0(x))
        x = self.compete(2, self.compete(1, x))
        return self.convolve(3, self.prelu(x))


class CompetitiveDenseBlock(DenseBlock):
    """Three convolutions compete with their inputs; the fourth does not."""

    def __init__(self, filters: int) -> None:
        super().__init__(filters, filters)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x of the same shape."""
        x = self.compete(2, self.compete(1, self.compete(0, x)))
        return self.convolve(3, self.prelu(x))


class OutputDenseBlock(DenseBlock):
    """The last block: joins the decoder with the input block at the resolution of the input."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(channels, filters, "gn")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return (N, filters, H, W) of the decoder's x and the input block's skip."""
        x = self.convolve(0, self.prelu(torch.cat([x, skip], dim=1)))
        x = self.compete(2, self.compete(1, x))
        return self.convolve(3, self.prelu(x))


class Encoding(nn.Module):
    """Mixed into a block of one argument: a pooling behind it, which keeps its indices."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.maxpool = nn.MaxPool2d(2, 2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pooled output, the output itself (the skip connection), and the pooling indices."""
        skip: Tensor = super().forward(x)  # type: ignore[misc]
        pooled, indices = self.maxpool(skip)
        return pooled, skip, indices


class Decoding(nn.Module):
    """Mixed into a block of one argument: before it an unpooling by the encoder's indices, and a competition."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.unpool = nn.MaxUnpool2d(2, 2)

    def forward(self, x: Tensor, skip: Tensor, indices: Tensor) -> Tensor:
        """Return (N, filters, H, W) of x (N, filters, H/2, W/2) and a skip connection (N, filters, H, W)."""
        y: Tensor = super().forward(torch.maximum(self.unpool(x, indices), skip))  # type: ignore[misc]
        return y


class EncoderBlockInput(Encoding, InputDenseBlock):  # type: ignore[misc]
    """The first encoder: the input block's pattern, then a pooling."""


class EncoderBlock(Encoding, CompetitiveDenseBlock):  # type: ignore[misc]
    """A dense block, then a pooling."""


class DecoderBlock(Decoding, CompetitiveDenseBlock):  # type: ignore[misc]
    """Unpool, compete with the skip connection, then a dense block."""


def down_and_up(network: nn.Module, x: Tensor) -> Tensor:
    """Return what a network's modules encode1 to encode4, bottleneck, and decode4 to decode1 make of x."""
    levels = []
    for level in range(1, LEVELS + 1):
        x, skip, indices = network.get_submodule(f"encode{level}")(x)
        levels.append((skip, indices))
    x = network.get_submodule("bottleneck")(x)
    for level in range(LEVELS, 0, -1):
        x = network.get_submodule(f"decode{level}")(x, *levels[level - 1])
    return x


def initialise(network: nn.Module) -> None:
    """Draw the convolutions' weights (Kaiming, fan_out, leaky ReLU); normalisations stay the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")


class Zoom2d(nn.Module):
    """Resample (N, C, H, W) bilinearly by a factor onto a plane of a given size; the identity at factor 1.

    The top-left corners coincide (align_corners False); what the target lacks is zero, what it exceeds is cut.
    """

    def forward(self, x: Tensor, factor: float, size: tuple[int, int]) -> Tensor:
        """Return (N, C, *size)."""
        if factor != 1.0:
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        bottom, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
        return x if bottom == right == 0 else F.pad(x, (0, right, 0, bottom))


class ClassifierBlock(nn.Module):
    """A 1x1 convolution to the classes."""

    def __init__(self, filters: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(filters, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes, H, W)."""
        out: Tensor = self.conv(x)
        return out


class FastSurferVINN(nn.Module):
    """Segment the middle one of several adjacent slices.

    Args:
        slices: Adjacent slices that come in as channels (7 in the paper).
        filters: Width of every block behind the inner resolution (71 in the paper).
        interpolation_filters: Width of the input block, which is what is zoomed (32 in the paper).
        classes: Output classes (79 axial and coronal, 51 sagittal in the paper).
        inner_size: Height and width of the inner plane (256 x 256 in the paper), or None: that of the input.
    """

    def __init__(
        self,
        slices: int = 7,
        filters: int = 71,
        interpolation_filters: int = 32,
        classes: int = 79,
        inner_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.slices, self.inner_size = slices, inner_size
        self.inp_block = InputDenseBlock(slices, interpolation_filters, "gn")
        self.encode1 = EncoderBlockInput(interpolation_filters, filters)
        self.encode2 = EncoderBlock(filters)
        self.encode3 = EncoderBlock(filters)
        self.encode4 = EncoderBlock(filters)
        self.bottleneck = CompetitiveDenseBlock(filters)
        self.decode4 = DecoderBlock(filters)
        self.decode3 = DecoderBlock(filters)
        self.decode2 = DecoderBlock(filters)
        self.decode1 = DecoderBlock(filters)
        self.interpol1 = Zoom2d()
        self.interpol2 = Zoom2d()
        self.outp_block = OutputDenseBlock(filters + interpolation_filters, filters)
        self.classifier = ClassifierBlock(filters, classes)
        initialise(self)

    def forward(self, x: Tensor, scale_factor: float | None = None) -> Tensor:
        """Return the logits of the middle slice, (N, classes, H, W).

        Args:
            x: Slices as channels, (N, slices, H, W).
            scale_factor: Size of the input's pixels over that of the inner plane (0.8 for 0.8 mm input, 1 mm
                inside); None is 1, where both zooms are the identity.
        Raises:
            ValueError: x has another number of slices, or the inner plane is no multiple of 16.
        """
        if x.ndim != 4 or x.shape[1] != self.slices:
            raise ValueError(f"Expected x of shape (N, {self.slices}, H, W), got {tuple(x.shape)}.")
        size = (x.shape[-2], x.shape[-1])
        inner = self.inner_size or size
        if inner[0] % MULTIPLE or inner[1] % MULTIPLE:
            raise ValueError(f"Expected an inner height and width that are multiples of {MULTIPLE}, got {inner}.")
        factor = 1.0 if scale_factor is None else float(scale_factor)
        if not factor > 0:
            raise ValueError(f"Expected a positive scale_factor, got {factor}.")
        skip = self.inp_block(x)
        y = down_and_up(self, self.interpol1(skip, factor, inner))
        y = self.outp_block(self.interpol2(y, 1 / factor, size), skip)
        logits: Tensor = self.classifier(y)
        return logits
