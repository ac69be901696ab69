"""What becomes of NaN in what a model returns? The final policy, in every tensor of it."""

from typing import Any

import torch
from torch import Tensor

from nanops.conversion.deferred import settled
from nanops.conversion.place import Place, may_hold_nan, pool_of
from nanops.conversion.trees import exchanged

_PLAIN = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def finish(at: Place, output: Any) -> Any:
    """Return an output with the NaNs of its tensors replaced; the very output where there is none.

    Tensors may stand in tuples, lists, dictionaries and dataclasses, within one another.

    Raises:
        ConversionError: the output holds the ties of a pool, or something that may hide tensors.
    """
    return exchanged(output, lambda part, leaf: _finish_leaf(at, leaf))


def _finish_leaf(at: Place, leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return _finish_tensor(at, settled(leaf))
    if leaf is None or isinstance(leaf, _PLAIN):
        return leaf
    raise at.refuse(f"it returns a {type(leaf).__name__}, in which NaNs cannot be replaced; expected tensors, or "
                    "tuples, lists, dictionaries or dataclasses of them")  # fmt: skip


def _finish_tensor(at: Place, output: Tensor) -> Tensor:
    pool = pool_of(output)
    if pool is not None:
        raise at.refuse(f"it returns the indices of {pool.layer}, which are ties in a converted model and good for "
                        "unpooling only")  # fmt: skip
    if at.final == "keep" or not may_hold_nan(output):
        return output
    return at.replaced(output, at.final, "output")
