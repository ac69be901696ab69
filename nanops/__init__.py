"""What is noise becomes NaN, and the work is skipped: pooling, unpooling and convolution that know NaN.

Where the largest value of a pooling window is ambiguous, what comes of it is noise. A converted model marks it with
NaN, and its convolutions skip windows that are mostly NaN:

    >>> import torch
    >>> from torch import nn
    >>> import nanops
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    ...         self.conv = nn.Conv2d(1, 1, 3, padding=1)
    ...     def forward(self, x):
    ...         return self.conv(self.unpool(*self.pool(x)))
    >>> model = Net().eval()
    >>> image = torch.zeros(1, 1, 16, 16)
    >>> image[..., 4:8, 4:8] = torch.arange(16.0).reshape(4, 4)
    >>> converted = nanops.convert(model, pooling="conservative", threshold=0.5)
    >>> with torch.inference_mode(), nanops.count_skipped(converted) as skipped:
    ...     y = converted(image)
    >>> skipped.layers["conv"].skipped, skipped.layers["conv"].windows
    (240, 256)
    >>> nanops.restore(converted) is model
    True
"""

from nanops import functional, modules
from nanops.accounting import count_skipped
from nanops.conversion.convert import convert, restore
from nanops.errors import ConversionError, InputError
from nanops.overrides import load_overrides, save_overrides
from nanops.tolerance import PAPER, PUBLISHED_CODE, Tolerance

__all__ = [
    "PAPER", "PUBLISHED_CODE", "ConversionError", "InputError", "Tolerance", "convert", "count_skipped", "functional",
    "load_overrides", "modules", "restore", "save_overrides",
]  # fmt: skip
