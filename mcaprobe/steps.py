"""Which steps of a network select, and what is recorded of each selection?

A selection is a decision: it takes one of several places, and rounding may make it take another one. What is recorded
are integers: the indices of a max pooling, the positions that an unpooling writes to, the labels of an output, and what
a model's own argmax or topk chose. Comparisons do not round: a decision flips because what it compares was perturbed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

POOL, UNPOOL, LABELS, ARGMAX = "pool", "unpool", "labels", "argmax"
STEPS = (POOL, UNPOOL, LABELS, ARGMAX)
INDICES_SUFFIX, TARGETS_SUFFIX, LABELS_SUFFIX = ".indices", ".targets", ".labels"
SUFFIXES = (INDICES_SUFFIX, TARGETS_SUFFIX, LABELS_SUFFIX)
# Functions of torch that return places of extremes, alone or behind the extremes themselves.
PLACES = frozenset({"argmax", "argmin"})
EXTREMES_AND_PLACES = frozenset({"max", "min", "topk"})


def is_pooling(operator: str) -> bool:
    """Return whether integer outputs of this operator are the indices of a pooling."""
    return "pool" in operator.lower()


def targets_of(operator: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the positions that a max unpooling of torch writes to, its argument `indices`; None for other calls."""
    # Not of nanops: what it unpools by are bitmaps of ties.
    if not operator.lower().replace("_", "").startswith("maxunpool"):
        return None
    indices = kwargs["indices"] if "indices" in kwargs else args[1] if len(args) > 1 else None
    return indices if isinstance(indices, Tensor) and _holds_integers(indices) else None


def _holds_integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def has_labels(output: Tensor) -> bool:
    """Return whether an output (N, C, ...) chooses among two classes or more."""
    return output.is_floating_point() and output.ndim >= 2 and output.shape[1] >= 2


def labels_of(output: Tensor) -> Tensor:
    """Return the argmax over axis 1 of an output (N, C, ...), int64 (N, ...), as torch has it.

    Of equal values the first one wins, and the first NaN wins over every number.
    """
    return output.argmax(1)
