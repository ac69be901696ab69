"""The way back from a max pooling with ties, as modules; functional/unpooling.py says what they return."""

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from nanops.errors import InputError
from nanops.functional import unpooling as functional
from nanops.windows import Size


class _MaxUnpool(nn.Module):
    """An unpooling of any dimension; the subclasses say which.

    Args:
        kernel_size, stride, padding, dilation: Those of the pooling; `stride` is `kernel_size` by default.
        overlap: What wins where windows overlap, "nan" or "value".
    """

    function: ClassVar[str]
    stock: ClassVar[type[nn.Module]]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *, overlap: str = "nan",
                 dilation: Size = 1) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.overlap, self.dilation = overlap, dilation

    @classmethod
    def from_torch(cls, module: nn.Module, **options: Any) -> Self:
        """Return this unpooling with the windows of torch's module of the same dimension.

        Raises:
            InputError: another module.
        """
        if not isinstance(module, cls.stock):
            raise InputError(f"Expected a torch.nn.{cls.stock.__name__}, got {type(module).__name__}.")
        found = cls(module.kernel_size, module.stride, module.padding, **options)  # type: ignore[arg-type]
        return found.train(module.training)

    def forward(self, values: Tensor, ties: Tensor, output_size: Size | None = None) -> Tensor:
        """Return the unpooled activations."""
        unpool = getattr(functional, self.function)
        return unpool(values, ties, self.kernel_size, self.stride, self.padding, output_size, overlap=self.overlap,
                      dilation=self.dilation)  # fmt: skip

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, overlap={self.overlap!r}, "
                f"dilation={self.dilation}")  # fmt: skip


class ConservativeMaxUnpool1d(_MaxUnpool):
    """See `conservative_max_unpool1d`."""

    function, stock = "conservative_max_unpool1d", nn.MaxUnpool1d


class ConservativeMaxUnpool2d(_MaxUnpool):
    """See `conservative_max_unpool2d`."""

    function, stock = "conservative_max_unpool2d", nn.MaxUnpool2d


class ConservativeMaxUnpool3d(_MaxUnpool):
    """See `conservative_max_unpool3d`."""

    function, stock = "conservative_max_unpool3d", nn.MaxUnpool3d
