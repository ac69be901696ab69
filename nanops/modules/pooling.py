"""Max pooling that says where the maximum is ambiguous, as modules; functional/pooling.py says what they return."""

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from nanops.errors import InputError
from nanops.functional import pooling as functional
from nanops.tolerance import PAPER, Tolerance
from nanops.windows import Size


class _MaxPool(nn.Module):
    """A pooling of any dimension and kind; the subclasses say which.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: As torch's own; `stride` is `kernel_size` by default.
        options: Those of the function of the same name: `tolerance` and, except of Multi, `max_ties`.
    """

    function: ClassVar[str]
    stock: ClassVar[type[nn.Module]]

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
                 ceil_mode: bool = False, *, tolerance: Tolerance = PAPER, **options: int) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.ceil_mode, self.tolerance = ceil_mode, tolerance
        known = {} if self.function.startswith("multi") else {"max_ties": 1}
        if unknown := options.keys() - known.keys():
            names = ", ".join(("tolerance", *known))
            raise InputError(f"Expected options among {names} for {type(self).__name__}, got {sorted(unknown)}.")
        self.options: dict[str, int] = known | options

    @classmethod
    def from_torch(cls, module: nn.Module, **options: Any) -> Self:
        """Return this pooling with the windows of torch's module of the same dimension.

        Raises:
            InputError: another module.
        """
        if not isinstance(module, cls.stock):
            raise InputError(f"Expected a torch.nn.{cls.stock.__name__}, got {type(module).__name__}.")
        found = cls(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, **options)  # type: ignore[arg-type]
        return found.train(module.training)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled values, and indices (Aggressive) or ties."""
        pool = getattr(functional, self.function)
        return pool(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                    tolerance=self.tolerance, **self.options)  # fmt: skip

    def extra_repr(self) -> str:
        """Return the arguments."""
        more = "".join(f", {name}={value}" for name, value in self.options.items())
        return (f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
                f"ceil_mode={self.ceil_mode}{more}, tolerance={self.tolerance}")  # fmt: skip


class AggressiveMaxPool1d(_MaxPool):
    """See `aggressive_max_pool1d`."""

    function, stock = "aggressive_max_pool1d", nn.MaxPool1d


class AggressiveMaxPool2d(_MaxPool):
    """See `aggressive_max_pool2d`."""

    function, stock = "aggressive_max_pool2d", nn.MaxPool2d


class AggressiveMaxPool3d(_MaxPool):
    """See `aggressive_max_pool3d`."""

    function, stock = "aggressive_max_pool3d", nn.MaxPool3d


class MultiMaxPool1d(_MaxPool):
    """See `multi_max_pool1d`."""

    function, stock = "multi_max_pool1d", nn.MaxPool1d


class MultiMaxPool2d(_MaxPool):
    """See `multi_max_pool2d`."""

    function, stock = "multi_max_pool2d", nn.MaxPool2d


class MultiMaxPool3d(_MaxPool):
    """See `multi_max_pool3d`."""

    function, stock = "multi_max_pool3d", nn.MaxPool3d


class HybridMaxPool1d(_MaxPool):
    """See `hybrid_max_pool1d`."""

    function, stock = "hybrid_max_pool1d", nn.MaxPool1d


class HybridMaxPool2d(_MaxPool):
    """See `hybrid_max_pool2d`."""

    function, stock = "hybrid_max_pool2d", nn.MaxPool2d


class HybridMaxPool3d(_MaxPool):
    """See `hybrid_max_pool3d`."""

    function, stock = "hybrid_max_pool3d", nn.MaxPool3d
