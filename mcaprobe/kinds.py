"""What becomes of an operator: is it exact, has it a rule of noise, is it made of others? How do those run?"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._decomp import decomposition_table

from mcaprobe.noise import elementwise, normalization, products, reductions, resampling
from mcaprobe.noise.exact import accumulates, is_exact, narrows
from mcaprobe.operators import composite, floating, functional

aten = torch.ops.aten
RULES: dict[Any, Callable[..., Any]] = {
    **products.RULES, **reductions.RULES, **elementwise.RULES, **normalization.RULES, **resampling.RULES,
}  # fmt: skip


def kind_of(func: Any, args: Any, kwargs: Any, inside: Sequence[Any] = ()) -> str:
    """Return `exact`, `modelled`, `promoted` (of integers), `decomposed` into others, or `unmodelled`.

    Args:
        inside: Operators that are being decomposed: one that ends in itself is not decomposed again.
    """
    packet = func.overloadpacket
    if narrows(func, args, kwargs):
        return "modelled"
    if func.overloadpacket in (aten.abs, aten.sgn) and args[0].is_complex():
        return "unmodelled"
    if is_exact(func) and not accumulates(func, args, kwargs):
        return "exact"
    # Composite operators come in more forms than the rule of the same name takes.
    if composite(func):
        if func not in inside:
            return "decomposed"
    elif packet in RULES or functional(func) in RULES:
        return "modelled" if floating(args, kwargs) else "exact" if func._schema.is_mutable else "promoted"
    if not floating(args, kwargs):
        return "exact"
    if func in decomposition_table and func not in inside:
        return "decomposed"
    return "unmodelled"


def run_parts(func: Any, args: Any, kwargs: Any) -> Any:
    """Run the operators of which a decomposed one is made."""
    if composite(func):
        # torch's own kernel: func.decompose() would prefer Python formulas, other than those of the CPU.
        return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
    return decomposition_table[func](*args, **kwargs)
