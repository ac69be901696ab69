"""What becomes of NaN in what a model returns? The final policy, in every tensor of it."""

import copy
import dataclasses
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from nanops.conversion.deferred import settled
from nanops.conversion.place import Place, may_hold_nan, pool_of

_PLAIN = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def finish(at: Place, output: Any) -> Any:
    """Return an output with the NaNs of its tensors replaced; the very output where there is none.

    Tensors may stand in tuples, lists, dictionaries and dataclasses, within one another.

    Raises:
        ConversionError: the output holds the ties of a pool, or something that may hide tensors.
    """
    if isinstance(output, Tensor):
        return _finish_tensor(at, settled(output))
    if output is None or isinstance(output, _PLAIN):
        return output
    if isinstance(output, MutableMapping):
        found = {key: finish(at, value) for key, value in output.items()}
        if all(found[key] is output[key] for key in found):
            return output
        made = copy.copy(output)
        made.update(found)
        return made
    if isinstance(output, (tuple, list)):
        items = [finish(at, value) for value in output]
        if all(new is old for new, old in zip(items, output, strict=True)):
            return output
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        values = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
        changed = {name: new for name, old in values.items() if (new := finish(at, old)) is not old}
        return dataclasses.replace(output, **changed) if changed else output
    raise at.refuse(f"it returns a {type(output).__name__}, in which NaNs cannot be replaced; expected tensors, or "
                    "tuples, lists, dictionaries or dataclasses of them")  # fmt: skip


def _finish_tensor(at: Place, output: Tensor) -> Tensor:
    pool = pool_of(output)
    if pool is not None:
        raise at.refuse(f"it returns the indices of {pool.layer}, which are ties in a converted model and good for "
                        "unpooling only")  # fmt: skip
    if at.final == "keep" or not may_hold_nan(output):
        return output
    return at.replaced(output, at.final, "output")
