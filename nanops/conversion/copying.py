"""How is a model copied so that it shares every tensor with the original? And which models are not converted?"""

import copy
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from nanops.conversion.mode import Converted, Plain
from nanops.errors import ConversionError, InputError

# Each step mixes all positions, or all times, so that one NaN would be everywhere after it.
_MIXING = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoderLayer,
           nn.TransformerDecoderLayer)  # fmt: skip
_QUANTIZED = ("torch.ao.nn", "torch.nn.quantized", "torch.nn.intrinsic", "torch.nn.qat", "torch.ao.quantization")


def check(model: nn.Module) -> None:
    """Refuse a model that cannot be converted faithfully, as far as its modules show that.

    Raises:
        InputError: not a module, or one that was converted before.
        ConversionError: a layer that mixes NaN into everything, or whose calls cannot be seen.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"Expected a torch.nn.Module, got a {type(model).__name__}.")
    for path, module in model.named_modules():
        if isinstance(module, Converted):
            name = f"layer {path!r} of the model" if path else "the model"
            raise InputError(f"Expected a model before its conversion, but {name} was converted; see nanops.restore.")
        why = _reason(module)
        if why:
            name = f"layer {path!r}" if path else "the model"
            raise ConversionError(f"Cannot convert {name}, a {type(module).__name__}: {why}.")


def _reason(module: nn.Module) -> str:
    home = type(module).__module__
    if isinstance(module, torch.jit.ScriptModule):
        return "a scripted or traced module does not call torch's functions in Python; convert what it was made from"
    if isinstance(module, torch._dynamo.OptimizedModule):
        return "it is compiled; convert first, compile then"
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return "it wraps a model; convert the model inside, then wrap it"
    if isinstance(module, _MIXING):
        return "recurrence and attention would mix a NaN into every position"
    if home.startswith(_QUANTIZED) or any(t.is_quantized for t in _own_tensors(module)):
        return "integers have no NaN; convert the model before it is quantized"
    if any(nn.parameter.is_lazy(t) for t in _own_tensors(module)):
        return "its parameters have no shape yet; call it once before"
    if "forward" in vars(module):
        return "its forward was replaced on the object, and may belong to another one; define it in a class"
    scripted = [n for n, v in vars(module).items() if isinstance(v, torch.jit.ScriptFunction)]
    if scripted:
        return f"{scripted[0]} is a scripted function, which does not call torch's functions in Python"
    return ""


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in a value, also those of modules in a list that is no ModuleList."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (t for v in value.values() for t in _tensors(v, seen))
    elif isinstance(value, (list, tuple, set)):
        yield from (t for v in value for t in _tensors(v, seen))
    elif isinstance(value, nn.Module):
        yield from _tensors(vars(value), seen)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy whose modules are new and whose tensors and hooks are those of the original.

    Raises:
        ConversionError: something in it cannot be copied.
    """
    memo: dict[int, Any] = {}
    modules, seen = set(model.modules()), set[int]()
    for module in modules:
        # A hook that is a method of a module belongs to the copy of that module.
        for thing in [*_tensors(vars(module), seen), *_hooks(module)]:
            if not (isinstance(thing, MethodType) and thing.__self__ in modules):
                memo[id(thing)] = thing
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ConversionError(f"Cannot convert the model: its modules cannot be copied ({error}).") from error
    for module in made.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number, hook in hooks.items():
                hooks[number] = Plain(hook)  # type: ignore[assignment]
    return made


def _hooks(module: nn.Module) -> Iterator[Any]:
    for name, hooks in vars(module).items():
        if name.startswith("_") and "hooks" in name and isinstance(hooks, dict):
            yield from (hook for hook in hooks.values() if callable(hook))
