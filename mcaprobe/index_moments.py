"""What must be kept of decisions, one integer each: the index of a window, the label of a voxel?"""

from __future__ import annotations

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.moments import expect_keys, same_layer


class IndexMoments:
    """How often each decision differs from the IEEE run: the index of a pooling's window, a label, a chosen place.

    Attributes:
        n: Samples seen.
        changes: Samples whose decision differs from the reference, int32, the shape of the layer.
        reference: Decisions of the IEEE run, int64.
    """

    __slots__ = ("changes", "n", "reference")

    def __init__(self, n: int, changes: Tensor, reference: Tensor) -> None:
        self.n = n
        self.changes = changes
        self.reference = reference

    @classmethod
    def empty(cls, reference: Tensor) -> IndexMoments:
        """Return the counts of no sample; `reference` holds the IEEE run's decisions, integers of any shape."""
        if reference.is_floating_point() or reference.is_complex() or reference.dtype == torch.bool:
            raise InputError(f"Expected decisions as integers, got {reference.dtype}.")
        reference = reference.detach().to(torch.int64, copy=True, memory_format=torch.contiguous_format)
        return cls(0, torch.zeros_like(reference, dtype=torch.int32), reference)

    @property
    def shape(self) -> torch.Size:
        return self.reference.shape

    def update(self, sample: Tensor) -> IndexMoments:
        """Take in the decisions of one sample; return self."""
        if sample.shape != self.shape:
            raise InputError(f"Expected decisions of shape {tuple(self.shape)}, got {tuple(sample.shape)}.")
        self.n += 1
        self.changes.add_(sample != self.reference)
        return self

    def merge(self, other: IndexMoments) -> IndexMoments:
        """Take in the counts of another block of the same layer; return self."""
        same_layer(self.reference, other.reference)
        self.n += other.n
        self.changes.add_(other.changes)
        return self

    def change_rate(self) -> Tensor:
        """Share of the samples whose decision differs from the IEEE run, float64 for each."""
        if self.n == 0:
            raise InputError("Expected at least 1 sample for an index change rate, got 0.")
        return self.changes.double() / self.n

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that from_state() needs."""
        return {"n": torch.tensor(self.n), "changes": self.changes, "reference": self.reference}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> IndexMoments:
        """Return the counts whose state() is `state`; the tensors are used, not copied."""
        expect_keys("index moments", state, {"n", "changes", "reference"})
        return cls(int(state["n"]), state["changes"], state["reference"])
