"""Which calls does the recorder record, and under which name?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mcaprobe.lanes import LaneTensor, lanes_of
from mcaprobe.steps import ARGMAX, EXTREMES_AND_PLACES, INDICES_SUFFIX, PLACES, POOL, is_pooling

# Whole copies, casts and moves: the same numbers again (some of them only copy where they have to).
COPIES = frozenset(
    {"clone", "contiguous", "copy_", "detach", "detach_", "reshape", "reshape_as", "flatten", "ravel"}
    | {"to", "type", "type_as", "float", "double", "half", "bfloat16", "cfloat", "cdouble", "cpu", "cuda"}
    | {"resolve_conj", "resolve_neg", "view_as_real", "pin_memory", "numpy", "requires_grad_", "set_"}
    | {"resize_", "resize_as_", "__get__", "__set__", "__deepcopy__", "__reduce_ex__"}
)
# Layers that only reshape: whether they copy depends on the memory layout.
RESHAPES = (nn.Flatten, nn.Unflatten, nn.Identity)
# New values that no input decides: factories, fills and random numbers. (Calls without a floating input are
# factories by themselves.)
FACTORIES = frozenset(
    {"fill_", "zero_", "__setitem__", "bernoulli", "bernoulli_", "normal", "normal_", "uniform_", "random_"}
    | {"exponential_", "geometric_", "cauchy_", "log_normal_", "new_tensor", "new_zeros", "new_ones"}
    | {"new_full", "new_empty", "new_empty_strided"}
)


def operator_name(func: Callable[..., Any]) -> str:
    """Return the name of a function in names of layers: `max_pool2d`, `add`, `add_`, `rsub`."""
    name = str(getattr(func, "__name__", func))
    if name.startswith("__") and name.endswith("__"):
        return name.strip("_")
    return name.removesuffix("_with_indices")


def is_excluded(func: Callable[..., Any]) -> bool:
    """Return whether a call of `func` is a copy, a cast or a factory, whatever its arguments."""
    name = str(getattr(func, "__name__", func))
    return name in COPIES or name in FACTORIES or name.endswith("_like")


def writes_in_place(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call changes one of its inputs, by the conventions of torch."""
    name = str(getattr(func, "__name__", func))
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name == "__setitem__"
        or bool(kwargs.get("inplace"))
        or kwargs.get("out") is not None
    )


def is_torch_leaf(module: nn.Module) -> bool:
    """Return whether functional calls inside `module` are its own: a layer of torch.nn without children."""
    return type(module).__module__.startswith("torch.nn.") and next(module.children(), None) is None


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in arguments: of sequences, mappings and dataclasses, however nested."""
    for _, tensor in named_tensors(tree):
        yield tensor


def named_tensors(tree: Any, suffix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield (suffix of the name, tensor) of an output: `` alone, `.0`, `.key`, `.field`, nested `.key.0`."""
    if isinstance(tree, Tensor):
        yield suffix, tree
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        parts = tree.items()
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        parts = zip(tree._fields, tree, strict=True)
    elif isinstance(tree, list | tuple):
        parts = enumerate(tree)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    for key, part in parts:
        yield from named_tensors(part, f"{suffix}.{key}")


class Output(NamedTuple):
    """One tensor in the output of a call.

    Attributes:
        suffix: Of its name.
        step: What the call selects (steps.STEPS), where the tensor holds the selection; else None.
    """

    suffix: str
    tensor: Tensor
    step: str | None


def outputs_of(operator: str, output: Any) -> list[Output]:
    """Return the outputs of a call.

    Those of a pooling with indices are `` and `.indices`; of a function that returns extremes and their places, such as
    max(dim) and topk, `.0` and `.indices`.
    """
    found = [Output(suffix, tensor, None) for suffix, tensor in named_tensors(output)]
    if isinstance(output, Tensor) and operator in PLACES:
        return [found[0]._replace(step=ARGMAX)]
    if len(found) == 2 and isinstance(output, tuple) and not is_floating(found[1].tensor):
        values, places = found
        if is_pooling(operator):
            return [values._replace(suffix=""), Output(INDICES_SUFFIX, places.tensor, POOL)]
        if operator in EXTREMES_AND_PLACES:
            return [values, Output(INDICES_SUFFIX, places.tensor, ARGMAX)]
    return found


def is_floating(tensor: Tensor) -> bool:
    """Return whether a tensor holds floating numbers densely; others are never activations."""
    return tensor.is_floating_point() and tensor.layout == torch.strided


def storage_of(tensor: Tensor) -> int | None:
    """Return what two tensors have in common only if they share memory; None where there is no telling."""
    try:
        storage = lanes_of(tensor)[0].untyped_storage()
        # Two storage objects can hold the same memory; empty and meta tensors have none.
        return int(storage.data_ptr() or storage._cdata)
    except (NotImplementedError, RuntimeError):
        # Sparse tensors and some subclasses have no storage.
        return None


def has_version(tensor: Tensor) -> bool:
    """Return whether torch counts the in-place changes of a tensor together with those of its views.

    It does not for tensors that inference mode made; a lane tensor's count is not that of its views.
    """
    return not isinstance(tensor, LaneTensor) and not tensor.is_inference()
