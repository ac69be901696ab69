"""What is an aten operator's call: its kind of schema, what it writes to, what its result must look like?"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from mcaprobe.errors import InputError
from mcaprobe.rounding import MANTISSA

aten = torch.ops.aten


def composite(func: Any) -> bool:
    """Whether the operator is defined by other operators only."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def floating(*trees: Any) -> bool:
    """Whether a floating-point or complex tensor is among the arguments."""
    return any(isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) for x in tree_flatten(trees)[0])


_COPIES = {"clone", "lift_fresh", "_to_copy", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like",
           "randn_like", "randint_like", "new_empty", "new_zeros", "new_ones", "new_full"}  # fmt: skip


def creates(func: Any, args: Any) -> bool:
    """Whether a tensor is made that no one else holds. copy.deepcopy points an empty scalar to storage of its own."""
    name = func._schema.name.split("::")[1]
    if name in _COPIES:
        return not (name == "new_empty" and len(args) > 1 and not len(args[1]))
    return (
        not func.is_view
        and not func._schema.is_mutable
        and not any(isinstance(a.type, torch.TensorType) for a in func._schema.arguments)
    )


def functional(func: Any) -> Any:
    """Return the operator that an in-place or out= form computes, or None where there is no such form."""
    name = func._schema.name.split("::")[1]
    if name.endswith("_") and not name.endswith("__"):
        return getattr(aten, name[:-1], None)
    return func.overloadpacket if is_out(func) else None


def is_out(func: Any) -> bool:
    """Whether this is the out= form of an operator."""
    return any(a.is_out for a in func._schema.arguments)


def random_generator(args: Any, kwargs: Any) -> torch.Generator:
    """Return the generator that a random operator draws from."""
    leaves = tree_flatten((args, kwargs))[0]
    given = next((x for x in leaves if isinstance(x, torch.Generator)), None)
    device = next((x.device for x in leaves if isinstance(x, Tensor)), torch.device("cpu"))
    if given is not None or device.type != "cuda":
        return given or torch.default_generator
    return torch.cuda.default_generators[device.index or 0]


def written_tensor(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return the tensor that an in-place operator writes to."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[i] if i < len(args) else kwargs[argument.name]
    raise InputError(f"{func} writes to none of its arguments.")


def check_dtypes(func: Any, args: Any, kwargs: Any) -> None:
    """Raise InputError where a tensor is of a format that the emulator has no arithmetic for."""
    for leaf in tree_flatten((args, kwargs))[0]:
        if not isinstance(leaf, Tensor):
            continue
        if leaf.is_complex() or (leaf.is_floating_point() and leaf.dtype not in MANTISSA):
            hint = "" if leaf.is_complex() else "; study low precision with mode rr and a virtual precision instead"
            raise InputError(
                f"Expected float32 or float64 tensors inside perturb(), got {str(leaf.dtype)[6:]} in "
                f"{func._schema.name}{hint}."
            )


_CONTIGUOUS = {aten._softmax, aten._log_softmax, aten.native_layer_norm, aten.cumsum, aten.cumprod}


def in_stock_format(func: Any, result: Any, args: Any) -> Any:
    """Return 4-D and 5-D results in the memory format of the stock kernel.

    That of the first input that has one (of any input of a convolution), or contiguous.
    """
    if func.overloadpacket in _CONTIGUOUS:
        return result
    for dim, last in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        shaped = [t for t in tree_flatten(args)[0] if isinstance(t, Tensor) and t.dim() == dim]
        formats = [(t.is_contiguous(), t.is_contiguous(memory_format=last)) for t in shaped]
        decided = [channels for plain, channels in formats if plain != channels]
        if decided[:1] == [True] or (func.overloadpacket is aten.convolution and any(decided)):
            return tree_map(
                lambda t, d=dim, f=last: t.contiguous(memory_format=f) if isinstance(t, Tensor) and t.dim() == d else t,
                result,
            )
    return result
