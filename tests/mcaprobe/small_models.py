"""Models of a few thousand operations, for campaigns that take a moment; each has one property that a test needs."""

import os

import numpy as np
import torch
from torch import Tensor, nn


class Model(nn.Module):
    """A model whose forward is the function given; its children by keyword."""

    def __init__(self, forward, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.run = forward

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


class Small(nn.Module):
    """Convolution, normalisation, pooling with indices, unpooling, convolution: a network in small."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.conv2 = nn.Conv2d(4, 2, 3, padding=1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv1(x))
        y, indices = self.pool(y)
        return self.conv2(self.unpool(y, indices))


class Line(nn.Module):
    """Three one-dimensional convolutions: no picture, hence quick."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.layers = nn.ModuleList([nn.Conv1d(1, 3, 3), nn.Conv1d(3, 3, 3), nn.Conv1d(3, 1, 3)])
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Curved(Line):
    """A convolution, and the functions of vector math on 22 elements of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layers[0](x)).exp()


class Pooled(nn.Module):
    """Convolution (symmetric), normalisation, pooling with indices, unpooling, convolution on a line."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.conv1 = nn.Conv1d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.pool = nn.MaxPool1d(2, return_indices=True)
        self.unpool = nn.MaxUnpool1d(2)
        self.conv2 = nn.Conv1d(4, 2, 3, padding=1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.conv1.weight[..., 2] = self.conv1.weight[..., 0]

    def forward(self, x: Tensor) -> Tensor:
        y, indices = self.pool(self.norm(self.conv1(x)))
        return self.conv2(self.unpool(y, indices))


class Voting(Small):
    """Small with three classes, of which two have the same weights: where the third loses, rounding decides."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        self.conv2 = nn.Conv2d(4, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.conv2.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
                parameter[1] = parameter[0]


class Asking(Line):
    """Asks for a perturbed number: no two runs can go side by side."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[0](x)
        return self.layers[2](self.layers[1](y) * (1.0 if float(y.sum()) > -1e30 else 2.0))


class Leaving(Line):
    """Leaves torch for numpy in the middle."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers[0](x)
        y = torch.from_numpy(np.abs(y.numpy()))
        return self.layers[2](self.layers[1](y))


class Raising(Line):
    """Raises after its second layer, but not in the two plain forwards before a campaign."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.layers[1](self.layers[0](x))
        if self.calls > 2:
            raise ValueError("no third layer today")
        return self.layers[2](y)


class Threaded(Line):
    """Takes two threads."""

    def forward(self, x: Tensor) -> Tensor:
        torch.set_num_threads(2)
        return super().forward(x)


class RaisingUnderVerrou(Line):
    """Raises in a run of a stand-in for Verrou only."""

    def forward(self, x: Tensor) -> Tensor:
        if "STANDIN_MODE" in os.environ:
            raise ValueError("not here\nand more lines")
        return super().forward(x)


class LongerUnderVerrou(Line):
    """Runs another layer in each perturbed run of a stand-in for Verrou."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.abs(y) if os.environ.get("STANDIN_MODE") == "random" else y


class Broken(Line):
    """Raises in any forward."""

    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("nothing works")


class Counting(Line):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Solid(nn.Module):
    """Convolution, pooling with indices, convolution and a number of the whole, in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.conv1 = nn.Conv3d(1, 3, 3, padding=1)
        self.pool = nn.MaxPool3d(2, return_indices=True)
        self.conv2 = nn.Conv3d(3, 2, 3, padding=1)
        self.cut = nn.Conv3d(2, 1, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.pool(self.conv1(x))
        return self.cut(self.conv2(y))


def build_solid() -> nn.Module:
    """Return Solid in evaluation mode."""
    return Solid().eval()


def build_small() -> nn.Module:
    """Return Small in evaluation mode."""
    return Small().eval()


def build_curved() -> nn.Module:
    """Return Curved in evaluation mode."""
    return Curved().eval()


def build_line() -> nn.Module:
    """Return Line in evaluation mode."""
    return Line().eval()


def build_pooled() -> nn.Module:
    """Return Pooled."""
    return Pooled().eval()


def build_voting() -> nn.Module:
    """Return Voting."""
    return Voting().eval()


def build_threaded() -> nn.Module:
    """Return Threaded."""
    return Threaded().eval()


def build_raising_under_verrou() -> nn.Module:
    """Return RaisingUnderVerrou."""
    return RaisingUnderVerrou().eval()


def build_longer_under_verrou() -> nn.Module:
    """Return LongerUnderVerrou."""
    return LongerUnderVerrou().eval()


def build_unseeded() -> nn.Module:
    """Return a model whose parameters are others in each process."""
    model = Line().eval()
    with torch.no_grad():
        model.layers[0].bias.fill_(os.getpid())
    return model


def build_training() -> nn.Module:
    """Return Line in training mode."""
    return Line().train()


def build_raising() -> nn.Module:
    """Return Raising."""
    return Raising().eval()


def build_counting() -> nn.Module:
    """Return Counting."""
    return Counting().eval()


def build_broken() -> nn.Module:
    """Return Broken."""
    return Broken().eval()


def build_dying() -> nn.Module:
    """End the process."""
    os._exit(9)


def build_nothing() -> str:
    """Return no module."""
    return "no module"


def build_failing() -> nn.Module:
    """Raise."""
    raise OSError("no weights here")


def image(size: int = 16) -> Tensor:
    """Return an image (1, 1, size, size) with a background of zeros."""
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(7))
    x[..., : size // 4] = 0
    return x


def line(size: int = 24) -> Tensor:
    """Return a signal (1, 1, size)."""
    return torch.rand(1, 1, size, generator=torch.Generator().manual_seed(8))


def mean_of(y: Tensor) -> float:
    """Return one number of the output."""
    return float(y.double().mean())


def two_numbers(y: Tensor) -> dict[str, float]:
    """Return two numbers of the output, the second the same in every run."""
    return {"largest": float(y.max()), "size": float(y.numel())}


def raising_metric(y: Tensor) -> float:
    """Raise."""
    raise KeyError("no such label")


HERE = "tests.mcaprobe.small_models"
