"""How does a module of torch become one of ours? It lends its parameters and buffers: both then learn as one."""

from typing import Any, ClassVar, Self, TypeVar

from torch import nn

from nanops.errors import ConversionError, InputError

M = TypeVar("M", bound=nn.Module)


class Sharing(nn.Module):
    """A module that can be made of torch's own; `_torch` says of which."""

    _torch: ClassVar[type[nn.Module]]

    @classmethod
    def from_torch(cls, module: nn.Module) -> Self:
        """Return one with the settings, the training flag and the very parameters and buffers of torch's module.

        Raises:
            ConversionError: another module.
        """
        return share(cls, module, cls._torch)


class Windowed(nn.Module):
    """A pooling or unpooling with the windows of torch's own, `_torch`; `_windows` are the names of its arguments."""

    _torch: ClassVar[type[nn.Module]]
    _operator: Any
    _windows: ClassVar[tuple[str, ...]]

    @classmethod
    def from_torch(cls, module: nn.Module, **options: Any) -> Self:
        """Return this module with the windows of torch's module of the same dimension.

        Raises:
            InputError: another module.
        """
        if not isinstance(module, cls._torch):
            raise InputError(f"Expected a torch.nn.{cls._torch.__name__}, got {type(module).__name__}.")
        found = cls(*(getattr(module, name) for name in cls._windows), **options)
        return found.train(module.training)


def share(kind: type[M], module: nn.Module, *torch_kinds: type[nn.Module]) -> M:
    """Return a `kind` with the settings, the training flag and the very parameters and buffers of a module.

    Hooks stay with the module they were registered on.

    Args:
        torch_kinds: What the module may be, besides a `kind` itself.
    Raises:
        ConversionError: another module; a subclass too, whose forward we do not know.
    """
    if type(module) not in (kind, *torch_kinds):
        names = " or ".join(t.__name__ for t in torch_kinds)
        raise ConversionError(f"Expected a {names} to make a {kind.__name__} of, got a {type(module).__name__}.")
    ours = kind.__new__(kind)
    nn.Module.__init__(ours)
    for name, value in vars(module).items():
        if not name.startswith("_"):
            vars(ours)[name] = value
    ours._parameters.update(module._parameters)
    ours._buffers.update(module._buffers)
    ours._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    return ours
