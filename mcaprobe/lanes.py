"""How does one pass through a model carry the IEEE run and several perturbed samples at once?

A lane is one run. A `LaneTensor` looks to the model like the tensor of a single run (same shape, dtype, device) and
holds one ordinary tensor per lane. Every operator is applied to each lane alone, so that no kernel ever sees two
samples together: a stock convolution of a batch of ten differs from ten convolutions in most of its low bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


class LockstepError(RuntimeError):
    """The model did something that only a single run can do, such as branching on a perturbed number."""


class LaneTensor(torch.Tensor):
    """The same activation in every lane; shape, dtype and device are those of one lane."""

    lanes: tuple[Tensor, ...]
    perturbed: bool

    @staticmethod
    def __new__(cls, lanes: Sequence[Tensor], perturbed: bool = False) -> "LaneTensor":
        first = lanes[0]
        if isinstance(first, LaneTensor):
            raise LockstepError("Expected plain tensors as lanes, got tensors of several lanes.")
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            first.shape,
            strides=first.stride(),
            storage_offset=0,
            dtype=first.dtype,
            device=first.device,
            requires_grad=False,
        )
        tensor.lanes = tuple(lanes)
        tensor.perturbed = perturbed
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Outside a lock-step block: the stock operator, lane by lane."""
        return map_lanes(lambda lane, a, k: func(*a, **k), args, kwargs or {})

    def numpy(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[assignment]
        """Refuse: a numpy array would be of one lane."""
        raise LockstepError(
            "The model leaves torch for numpy or Python lists, where samples cannot be kept together: "
            "run one sample at a time."
        )

    tolist = __array__ = numpy  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"LaneTensor({len(self.lanes)} lanes of shape {tuple(self.shape)}, {self.dtype})"


def lanes_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the tensor of each lane, the IEEE run first where there is one; a plain tensor is its own only lane."""
    return tensor.lanes if isinstance(tensor, LaneTensor) else (tensor,)


def lane_count(*trees: Any) -> int | None:
    """Return how many lanes the tensors in these arguments have, or None where all of them are plain."""
    for leaf in tree_flatten(trees)[0]:
        if isinstance(leaf, LaneTensor):
            return len(leaf.lanes)
    return None


def pick_lane(tree: Any, lane: int) -> Any:
    """Return the arguments as lane `lane` sees them."""
    leaves, spec = tree_flatten(tree)
    return tree_unflatten([x.lanes[lane] if isinstance(x, LaneTensor) else x for x in leaves], spec)


def join_lanes(results: Sequence[Any], perturbed: bool) -> Any:
    """Return one result whose tensors are lane tensors.

    Raises:
        LockstepError: where the lanes disagree on a number, a shape or a dtype.
    """
    flat = [tree_flatten(r) for r in results]
    spec = flat[0][1]
    joined = []
    for values in zip(*(leaves for leaves, _ in flat), strict=True):
        first = values[0]
        if isinstance(first, Tensor):
            if any(v.shape != first.shape or v.dtype != first.dtype for v in values):
                shapes = sorted({tuple(v.shape) for v in values})
                raise LockstepError(f"The samples disagree on the shape of a tensor: {shapes}.")
            joined.append(LaneTensor(values, perturbed))
        elif all(v == first or (v != v and first != first) for v in values):
            joined.append(first)
        else:
            raise LockstepError(f"The samples disagree on a Python number that the model asks for: {values[:3]}.")
    return tree_unflatten(joined, spec)


def map_lanes(function: Callable[[int, Any, Any], Any], args: Any, kwargs: Any, count: int | None = None) -> Any:
    """Apply `function(lane, args, kwargs)` to each lane's arguments, one after the other."""
    count = count or lane_count(args, kwargs) or 1
    return join_lanes(
        [function(i, pick_lane(args, i), pick_lane(kwargs, i)) for i in range(count)], is_perturbed(args, kwargs)
    )


def is_perturbed(*trees: Any) -> bool:
    """Return whether any tensor here depends on a rounding that differs between samples."""
    return any(getattr(x, "perturbed", False) for x in tree_flatten(trees)[0] if isinstance(x, Tensor))
