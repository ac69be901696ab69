"""What are the runs of one layer beside each other, before anything is computed from them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import Moments
from mcaprobe.reducer import Reducer
from mcaprobe.sweep import block_moments


def empty_moments(reference: Tensor) -> Moments | IndexMoments:
    """Return the moments of no sample of a layer, floating or of decisions."""
    return Moments.empty(reference) if reference.is_floating_point() else IndexMoments.empty(reference)


class LaneBlocks:
    """The IEEE run and the samples of one layer; iterated, the moments of each block of samples, in order.

    Args:
        runs: The layer in each sample.
        blocks: Their grouping, which the bits of merged moments depend on.
        reducer: Where blocks go side by side.
    """

    def __init__(
        self, reference: Tensor, runs: Mapping[int, Tensor], blocks: Sequence[range], reducer: Reducer
    ) -> None:
        self.reference = reference
        self.runs = runs
        self.blocks = list(blocks)
        self.reducer = reducer

    def samples(self) -> list[list[Tensor]]:
        """Return the layer in the samples of each block."""
        return [[self.runs[sample] for sample in block] for block in self.blocks]

    def __iter__(self) -> Iterator[Moments | IndexMoments]:
        for i, block in enumerate(self.samples()):
            moments = block_moments(self.reference, [block], self.reducer.threads)
            if moments is None:
                yield from self.reducer.each(self._reduce, self.blocks[i:])
                return
            yield moments

    def total(self) -> Moments | IndexMoments:
        """Return the moments of all samples, merged in the order of the blocks."""
        blocks = iter(self)
        total: Any = next(blocks)
        for block in blocks:
            total.merge(block)
        return total

    def _reduce(self, block: range) -> Moments | IndexMoments:
        moments: Any = empty_moments(self.reference)
        for sample in block:
            moments.update(self.runs[sample])
        return moments
