"""Networks to prune, and the layer at which a convolution's channels are 0 for all that reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.nnunet import PlainUNet


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU; the last one on demand."""

    def __init__(self, into: int, out: int, act: bool = True, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, stride, padding=1)
        self.norm = nn.BatchNorm2d(out)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class ResidualUNet(nn.Module):
    """Additions in the blocks and across the skip connection, transposed convolutions, interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.one, self.two = Block(2, 5), Block(5, 4), Block(4, 5, act=False)
        self.down = Block(5, 7, stride=2)
        self.wide = Block(7, 7, act=False)
        self.up = nn.ConvTranspose2d(7, 5, 2, 2)
        self.pre, self.post = Block(7, 3), Block(5 + 3, 6)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x)
        x = torch.relu(x + self.two(self.one(x)))
        y = self.down(x)
        y = torch.relu(self.wide(y) + y)
        small = nn.functional.interpolate(self.pre(y), scale_factor=2.0, mode="bilinear")
        return self.head(self.post(torch.cat([self.up(y) + x, small], 1)))


class Attending(nn.Module):
    """Depthwise convolutions (two filters a channel), groups of a GroupNorm, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.ReLU())
        self.depthwise = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.point = nn.Conv2d(12, 8, 1)
        self.slopes = nn.PReLU(8)
        self.squeeze, self.excite = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)
        self.spread = nn.ConvTranspose2d(8, 8, 2, 2, groups=8)
        self.head = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.point(self.depthwise(self.inward(x))))
        share = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(self.spread(x * share)).softmax(1)


@dataclass(frozen=True)
class Host:
    """A network's builder, the shape of its input, and the layers where a convolution's channels are silenced."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    silence_at: Callable[[str], list[str]]

    def silences(self, removed: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
        """Return the channels to silence, by layer, instead of those removed from convolutions."""
        return {place: channels for layer, channels in removed.items() for place in self.silence_at(layer)}

    def network(self, seed: int = 0) -> nn.Module:
        """Return the network in eval mode, float64, its normalisations away from the identity."""
        torch.manual_seed(seed)
        network = self.build().double().eval()
        for module in network.modules():
            if isinstance(getattr(module, "running_var", None), Tensor):
                module.running_mean.normal_()  # type: ignore[union-attr,operator]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
            if not isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.PReLU)):
                for parameter in module.parameters(recurse=False):
                    nn.init.uniform_(parameter, 0.5, 1.5)
            elif getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias)  # type: ignore[arg-type]
        return network

    def example(self, seed: int = 0) -> Tensor:
        return torch.rand(self.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit_end(layer: str) -> list[str]:
    return [layer[: -len("conv")] + "act" if layer.startswith(("encoder", "decoder")) else layer]


def vinn_norm(layer: str) -> list[str]:
    block, conv = layer.split(".")
    norm = f"{block}.{'gn' if block in ('inp_block', 'outp_block') else 'bn'}{int(conv[-1]) + 1}"
    # The next block normalises the input block's output once more.
    return [norm, "encode1.bn0"] if layer == "inp_block.conv3" else [norm]


def residual_end(layer: str) -> list[str]:
    return [layer[: -len("conv")] + "act" if layer.endswith(".conv") else layer]


def attending_end(layer: str) -> list[str]:
    return [{"inward.0": "inward.2", "point": "slopes"}.get(layer, layer)]


def plain(dims: int, downsampling: str, features: Sequence[int] = (4, 6, 7)) -> Callable[[], nn.Module]:
    return lambda: PlainUNet(dims, 2, 3, features, downsampling=downsampling)


HOSTS = {
    "plain 2D, strides": Host(plain(2, "stride"), (2, 2, 12, 8), unit_end),
    "plain 2D, pools": Host(plain(2, "pool"), (2, 2, 12, 8), unit_end),
    "plain 3D, strides": Host(plain(3, "stride"), (1, 2, 8, 8, 4), unit_end),
    "plain 3D, pools": Host(plain(3, "pool"), (1, 2, 8, 8, 4), unit_end),
    "plain 2D, pools, equal widths": Host(plain(2, "pool", (5, 5, 5)), (2, 2, 12, 8), unit_end),
    "competing": Host(lambda: FastSurferVINN(3, 6, 4, 5), (1, 3, 32, 16), vinn_norm),
    "competing, zooming": Host(lambda: FastSurferVINN(3, 6, 4, 5, inner_size=(32, 16)), (1, 3, 24, 20), vinn_norm),
    "additions": Host(ResidualUNet, (2, 2, 8, 12), residual_end),
    "groups": Host(Attending, (2, 1, 8, 8), attending_end),
}
