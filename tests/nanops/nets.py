"""Small networks to convert: one per property that a test needs, and images with ties in their background."""

import torch
import torch.nn.functional as F
from torch import nn

from nanops.functional.convolution import nan_conv2d
from nanops.functional.pooling import aggressive_max_pool2d, hybrid_max_pool2d, multi_max_pool2d
from nanops.functional.unpooling import conservative_max_unpool2d


def seeded(model, seed=0):
    """Return the model in evaluation mode with normal parameters and uneven running statistics."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if t.is_floating_point():
                t.copy_(torch.randn(t.shape, generator=g) / 2)
            if "running_var" in name:
                t.copy_(torch.rand(t.shape, generator=g) + 0.5)
            if name == "norm.bias":
                t.fill_(4)  # few values are below the ReLU, so that only the background ties
    return model.eval()


def image(n=2, channels=1, size=16, seed=3):
    """Return images (n, channels, size, size) of a constant background with a brain of random numbers in the middle."""
    x = torch.zeros(n, channels, size, size)
    a, b = size // 4, size - size // 4
    x[:, :, a:b, a:b] = torch.rand(n, channels, b - a, b - a, generator=torch.Generator().manual_seed(seed))
    return x


def untied(n=2, channels=1, size=16):
    """Return images in which no two numbers are equal."""
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(11))


class Modules(nn.Module):
    """Convolution, norm, pool with indices, convolution, unpool, convolution; in modules."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.unpool = nn.MaxUnpool2d(2)
        self.conv2 = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        y, indices = self.pool(torch.relu(self.norm(self.conv1(x))))
        return self.conv2(self.unpool(self.middle(y), indices))


class Functional(Modules):
    """The same in functional calls, on the same parameters."""

    def forward(self, x):
        y = F.conv2d(x, self.conv1.weight, self.conv1.bias, padding=1)
        n = self.norm
        y = F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, self.training, eps=n.eps)
        y, indices = F.max_pool2d(F.relu(y), 2, return_indices=True)
        y = torch.conv2d(y, self.middle.weight, self.middle.bias, padding=1)
        y = F.max_unpool2d(y, indices, 2)
        return F.conv2d(y, weight=self.conv2.weight, bias=self.conv2.bias, padding="same")


class Torch(Functional):
    """The same in the spellings of torch itself."""

    def forward(self, x):
        y = torch.convolution(x, self.conv1.weight, self.conv1.bias, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        n = self.norm
        y = torch.batch_norm(y, n.weight, n.bias, n.running_mean, n.running_var, self.training, 0.1, n.eps, False)
        y, indices = torch._C._nn.max_pool2d_with_indices(y.relu_(), 2)
        y = torch.ops.aten.conv2d(y, self.middle.weight, self.middle.bias, [1, 1], [1, 1])
        y = F.max_unpool2d(y, indices, 2)
        return torch.conv2d(y, self.conv2.weight, self.conv2.bias, padding=1)


def by_hand(model, x, pooling, threshold=0.5, max_ties=1):
    """Return what Modules gives where its layers are written in the NaN operators, without the final policy."""
    y = torch.relu(model.norm(nan_conv2d(x, model.conv1.weight, model.conv1.bias, padding=1, threshold=threshold)))
    if pooling == "conservative":
        y, ties = multi_max_pool2d(y, 2)
    elif pooling == "hybrid":
        y, ties = hybrid_max_pool2d(y, 2, max_ties=max_ties)
    elif pooling == "aggressive":
        y, ties = aggressive_max_pool2d(y, 2, max_ties=max_ties)
    else:
        y, ties = F.max_pool2d(y, 2, return_indices=True)
    y = nan_conv2d(y, model.middle.weight, model.middle.bias, padding=1, threshold=threshold)
    unpool = conservative_max_unpool2d if pooling in ("conservative", "hybrid") else F.max_unpool2d
    return nan_conv2d(unpool(y, ties, 2), model.conv2.weight, model.conv2.bias, padding=1, threshold=threshold)


class Tail(nn.Module):
    """Modules without its last convolution, then what a test gives."""

    def __init__(self, tail, **layers):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.tail = tail
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.tail(self, self.unpool(*self.pool(x)))
