"""Max pooling that says where the maximum is ambiguous, as modules; functional/pooling.py says what they return."""

from typing import ClassVar

from torch import Tensor, nn

from nanops.errors import InputError
from nanops.functional import pooling as functional
from nanops.modules.sharing import Windowed
from nanops.tolerance import PAPER, Tolerance
from nanops.windows import Size


class _MaxPool(Windowed):
    """A pooling of any dimension and kind; the subclasses say which.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: As torch's own; `stride` is `kernel_size` by default.
        options: Those of the function of the same name: `tolerance` and, except of Multi, `max_ties`.
    """

    _windows = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    _defaults: ClassVar[dict[str, int]] = {"max_ties": 1}

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 ceil_mode: bool = False, *, tolerance: Tolerance = PAPER, **options: int) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode, self.tolerance = ceil_mode, tolerance
        if unknown := options.keys() - self._defaults.keys():
            names = ", ".join(("tolerance", *self._defaults))
            raise InputError(f"Expected options among {names} for {type(self).__name__}, got {sorted(unknown)}.")
        self.options = self._defaults | options

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled values, and indices (Aggressive) or ties."""
        windows = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        return self._operator(x, *windows, tolerance=self.tolerance, **self.options)

    def extra_repr(self) -> str:
        """Return the arguments."""
        more = "".join(f", {name}={value}" for name, value in self.options.items())
        return (f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
                f"ceil_mode={self.ceil_mode}{more}, tolerance={self.tolerance}")  # fmt: skip


class AggressiveMaxPool1d(_MaxPool):
    """See `aggressive_max_pool1d`."""

    _torch, _operator = nn.MaxPool1d, staticmethod(functional.aggressive_max_pool1d)


class AggressiveMaxPool2d(_MaxPool):
    """See `aggressive_max_pool2d`."""

    _torch, _operator = nn.MaxPool2d, staticmethod(functional.aggressive_max_pool2d)


class AggressiveMaxPool3d(_MaxPool):
    """See `aggressive_max_pool3d`."""

    _torch, _operator = nn.MaxPool3d, staticmethod(functional.aggressive_max_pool3d)


class _MultiMaxPool(_MaxPool):
    _defaults: ClassVar[dict[str, int]] = {}


class MultiMaxPool1d(_MultiMaxPool):
    """See `multi_max_pool1d`."""

    _torch, _operator = nn.MaxPool1d, staticmethod(functional.multi_max_pool1d)


class MultiMaxPool2d(_MultiMaxPool):
    """See `multi_max_pool2d`."""

    _torch, _operator = nn.MaxPool2d, staticmethod(functional.multi_max_pool2d)


class MultiMaxPool3d(_MultiMaxPool):
    """See `multi_max_pool3d`."""

    _torch, _operator = nn.MaxPool3d, staticmethod(functional.multi_max_pool3d)


class HybridMaxPool1d(_MaxPool):
    """See `hybrid_max_pool1d`."""

    _torch, _operator = nn.MaxPool1d, staticmethod(functional.hybrid_max_pool1d)


class HybridMaxPool2d(_MaxPool):
    """See `hybrid_max_pool2d`."""

    _torch, _operator = nn.MaxPool2d, staticmethod(functional.hybrid_max_pool2d)


class HybridMaxPool3d(_MaxPool):
    """See `hybrid_max_pool3d`."""

    _torch, _operator = nn.MaxPool3d, staticmethod(functional.hybrid_max_pool3d)
