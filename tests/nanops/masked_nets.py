"""Networks with pools and unpools for the tests of masks, as modules and as functional calls."""

import torch
import torch.nn.functional as F
from torch import nn

import nanops

POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
UNPOOL = {1: nn.MaxUnpool1d, 2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}
F_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
F_UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}


class Calling(nn.Module):
    """A model whose forward is the function given; its children by keyword."""

    def __init__(self, call, **children):
        super().__init__()
        self.call = call
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        return self.call(self, x)


class Pair(nn.Module):
    """A pool and its unpool by modules, and what each of them returns."""

    def __init__(self, dims=2, kernel_size=2, **pool):
        super().__init__()
        self.pool = POOL[dims](kernel_size, return_indices=True, **pool)
        self.unpool = UNPOOL[dims](kernel_size)
        self.dims, self.names = dims, ("pool", "unpool")

    def forward(self, x):
        y, indices = self.pool(x)
        return y, indices, self.unpool(y, indices, output_size=x.shape[-self.dims :])


class FunctionalPair(nn.Module):
    """The same by functions."""

    def __init__(self, dims=2, kernel_size=2, **pool):
        super().__init__()
        self.dims, self.kernel_size, self.pool = dims, kernel_size, pool
        self.names = f":max_pool{dims}d", f":max_unpool{dims}d"

    def forward(self, x):
        y, indices = F_POOL[self.dims](x, self.kernel_size, return_indices=True, **self.pool)
        size = x.shape[-self.dims :]
        return y, indices, F_UNPOOL[self.dims](y, indices, self.kernel_size, output_size=size)


class Levels(nn.Module):
    """Two levels of convolution, pool, unpool and convolution, the larger of both where they meet."""

    def __init__(self, channels=8):
        super().__init__()
        sizes = (1, channels), *[(channels, channels)] * 4
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in sizes)
        self.active = nn.PReLU()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(channels, 3, 1)

    def block(self, n, x):
        return self.norms[n](self.convs[n](self.active(x)))

    def forward(self, x):
        a = self.block(0, x)
        y, i = self.pool(a)
        b = self.block(1, y)
        y, j = self.pool(b)
        y = torch.maximum(self.block(2, self.unpool(y, j)), b)
        y = torch.maximum(self.block(3, self.unpool(y, i)), a)
        return self.last(self.block(4, y))


def some(*shape, seed=0, rate=0.3):
    """Return a mask in which a share is marked."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate


def marked(y, mask):
    """Return y with NaN where a mask is."""
    return torch.where(mask, torch.nan, y)


def masked(model, masks, **options):
    """Return the conversion with masks, which keeps NaN in its output."""
    return nanops.convert(model, "mask", masks=masks, **{"final": "keep", **options})
