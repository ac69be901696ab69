"""Where does NaN go in one forward? Where the masks say, at the outputs of pools and unpools, and nowhere else."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from nanops.conversion.masks import INDICES, Call, Masks
from nanops.conversion.place import Place, shape_of
from nanops.conversion.trees import exchanged
from nanops.errors import ConversionError, InputError, nearest

_MADE = "_nanops_made"


@dataclass(frozen=True, slots=True)
class _Made:
    """What a tensor is, an attribute of it as the pool of some ties is: a part of what a call returned."""

    call: Call
    part: str
    dims: int


class Oracle:
    """One forward of a model that has masks, or of a layer of it."""

    def __init__(self, masks: Masks, layer: str) -> None:
        self.masks, self.layer = masks, layer
        self.calls: Counter[tuple[str, str]] = Counter()
        self.found: set[Call] = set()

    def mark(self, at: Place, dims: int, output: Any) -> Any:
        """Return what a pool or unpool over images of `dims` axes returned, with its NaNs."""
        values, *indices = output if isinstance(output, tuple) else (output,)
        own = at.path in self.masks.own
        call = self._next(at.path, "" if own else at.name.removesuffix("_with_indices"))
        masks = self.masks.given.get(call)
        if masks is not None:
            self.found.add(call)
            values = _marked(values, masks, call, dims)
        if self.masks.around:
            _remember(values, _Made(call, "", dims))
            for t in indices:
                _remember(t, _Made(call, INDICES, dims))
        return (values, *indices) if indices else values

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def returned(self, path: str, output: Any) -> Any:
        """Return what a layer returned, with the NaNs of the pools and unpools whose outputs it returns.

        Raises:
            ConversionError: a mask is of something else.
        """
        leaves = _tensors(output)
        if not leaves:
            return output
        call = self._next(path, "")
        masks = self.masks.given.get(call)
        if masks is None:
            return output
        self.found.add(call)
        wanted: dict[str, dict[str, Tensor]] = {}
        for part, mask in masks.items():
            wanted.setdefault(_values(call, part, leaves), {})[part] = mask

        def change(part: str, leaf: Any) -> Any:
            if part not in wanted:
                return leaf
            made: _Made = getattr(leaf, _MADE)
            return _remember(_marked(leaf, wanted[part], call, made.dims), made)

        return exchanged(output, change)

    def _next(self, path: str, operator: str) -> Call:
        """Return the call that is made now.

        Raises:
            ConversionError: a layer runs by itself, and which call of the model's forward that is makes a difference.
        """
        self.calls[path, operator] += 1
        call = Call(path, operator, self.calls[path, operator])
        if self.layer and self.masks.repeats(path, operator):
            raise ConversionError(f"Cannot convert {call.name!r} in a forward of layer {self.layer!r} by itself: masks "
                                  "tell its calls apart by their number in a forward of the model.")  # fmt: skip
        return call

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def expect_found(self) -> None:
        """Refuse masks of calls that were not made in the forward of the model.

        Raises:
            ConversionError: there are some.
        """
        for call in self.masks.given:
            if call not in self.found:
                made = [Call(*key, n + 1).name for key, count in self.calls.items() for n in range(count)]
                raise ConversionError(f"Cannot convert {call.name!r}, which has a mask: no call of that name was made "
                                      f"in this forward{nearest(call.name, made)}")  # fmt: skip


def _marked(values: Tensor, masks: Mapping[str, Tensor], call: Call, dims: int) -> Tensor:
    """Return a copy of values with NaN where one of the masks is, in their memory format."""
    if not values.is_floating_point():
        raise InputError(f"Expected floating-point values for the mask of {call.name!r}, got {values.dtype}.")
    shape = shape_of(values)
    fitting = [shape, (1, *shape[1:])] if len(shape) == dims + 2 and shape[0] != 1 else [shape]
    for part, mask in masks.items():
        if shape_of(mask) not in fitting:
            expected = " or ".join(map(str, fitting))
            raise InputError(f"Expected the mask {call.name + part!r} in shape {expected}, got {shape_of(mask)}.")
    with torch._C.DisableTorchFunction():
        where = reduce(torch.logical_or, [mask.to(values.device) for mask in masks.values()])
        return values.clone().masked_fill_(where, torch.nan)


def _tensors(output: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def note(part: str, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            found[part] = leaf
        return leaf

    exchanged(output, note)
    return found


def _remember(t: Tensor, made: _Made) -> Tensor:
    setattr(t, _MADE, made)
    return t


def _values(call: Call, part: str, leaves: Mapping[str, Tensor]) -> str:
    """Return which part of what a layer returned are the values that the mask of a part is of.

    Raises:
        ConversionError: none is.
    """
    # A recorder names the two outputs of a class with "pool" in its name as those of a pool.
    pair = {"": ".0", INDICES: ".1"} if len(leaves) == 2 and part not in leaves else {}
    at = pair.get(part, part)
    made = _made(leaves, at)
    if made is None:
        raise ConversionError(f"Cannot convert {call.name + part!r}, which has a mask: it is not what a max-pool or "
                              "max-unpool returned.")  # fmt: skip
    if not made.part:
        return at
    for other in leaves:
        its = _made(leaves, other)
        if its is not None and its.call == made.call and not its.part:
            return other
    raise ConversionError(f"Cannot convert {call.name + part!r}, which has a mask: they are the indices of "
                          f"{made.call.name!r}, whose values are not beside them.")  # fmt: skip


def _made(leaves: Mapping[str, Tensor], part: str) -> _Made | None:
    return getattr(leaves.get(part), _MADE, None)
