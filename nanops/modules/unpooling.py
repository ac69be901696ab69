"""The way back from a max pooling with ties, as modules; functional/unpooling.py says what they return."""

from torch import Tensor, nn

from nanops.functional import unpooling as functional
from nanops.modules.sharing import Windowed
from nanops.windows import Size


class _MaxUnpool(Windowed):
    """An unpooling of any dimension; the subclasses say which.

    Args:
        kernel_size, stride, padding, dilation: Those of the pooling; `stride` is `kernel_size` by default.
        overlap: What wins where windows overlap, "nan" or "value".
    """

    _windows = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *, overlap: str = "nan",
                 dilation: Size = 1) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.overlap, self.dilation = overlap, dilation

    def forward(self, values: Tensor, ties: Tensor, output_size: Size | None = None) -> Tensor:
        """Return the unpooled activations."""
        windows = self.kernel_size, self.stride, self.padding
        return self._operator(values, ties, *windows, output_size, overlap=self.overlap, dilation=self.dilation)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, overlap={self.overlap!r}, "
                f"dilation={self.dilation}")  # fmt: skip


class ConservativeMaxUnpool1d(_MaxUnpool):
    """See `conservative_max_unpool1d`."""

    _torch, _operator = nn.MaxUnpool1d, staticmethod(functional.conservative_max_unpool1d)


class ConservativeMaxUnpool2d(_MaxUnpool):
    """See `conservative_max_unpool2d`."""

    _torch, _operator = nn.MaxUnpool2d, staticmethod(functional.conservative_max_unpool2d)


class ConservativeMaxUnpool3d(_MaxUnpool):
    """See `conservative_max_unpool3d`."""

    _torch, _operator = nn.MaxUnpool3d, staticmethod(functional.conservative_max_unpool3d)
