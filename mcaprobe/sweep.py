"""What does one compiled sweep over a layer find: classes, bits, counts of scores, all that its products need?

It takes float32 layers on the processor and the convention `classes`; anything else, and a machine without kernels,
goes through torch (significance.py, scores.py), with the same rows up to the rounding of a logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mcaprobe import fused
from mcaprobe.estimators import Class, Estimator, shift
from mcaprobe.moments import MOST_SAMPLES, Moments
from mcaprobe.regions import ALL, positions
from mcaprobe.scores import COMBINATIONS, LOWEST, PER_BIT, bin_count

# Bins of bits in which the ranks of percentiles are looked up; the last one takes the rest.
RANKS_PER_BIT = 64
RANK_BINS = 48 * RANKS_PER_BIT
# A cell, a combination of regions, is one byte; a channel's count in a map two.
MOST_REGIONS = 7
MOST_CHANNELS = 2**16 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Swept:
    """What a sweep found; R regions, `all` first.

    Attributes:
        bits, codes: float64 and uint8, flat: bits and Class of each element; bits mean nothing unless NUMBER or NOISE.
        kinds: int64 (R, 8), elements of each Class.
        low_snr: int64 (R,), elements that vary with std >= |mean|.
        sums: Of the bits of the elements of class NUMBER, by region.
        scores: int64 (R, 8, bins), see Histogram.counts.
        moments: The moments, where they were asked for or given.
    """

    n: int
    shape: tuple[int, ...]
    regions: tuple[str, ...]
    bits: np.ndarray
    codes: np.ndarray
    kinds: np.ndarray
    low_snr: np.ndarray
    sums: list[float]
    scores: np.ndarray
    moments: Moments | None
    _ranks: np.ndarray
    _cell: np.ndarray | None
    _threads: int

    def percentiles(self, share: float) -> list[float | None]:
        """Return the quantile (linear between ranks) of the bits of the numbers of each region; None without any."""
        wanted = [_Rank.of(counts, share) for counts in self._ranks]
        some = [(i, rank) for i, rank in enumerate(wanted) if rank is not None]
        result: list[float | None] = [None] * len(wanted)
        if some:
            masks = [0 if i == 0 else 1 << (i - 1) for i, _ in some]
            values = fused.select(
                self.bits, self.codes, self._cell, masks, [r.ends for _, r in some], [r.count for _, r in some]
            )
            for (i, rank), found in zip(some, values, strict=True):
                result[i] = rank.value(found)
        return result

    def channel_map(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the map of channel_map() for a layer (1, C, *spatial), or None where it has too many channels."""
        if self.shape[1] > MOST_CHANNELS:
            return None
        spatial = self.shape[2:]
        bits, majority, shares = fused.channel_map(self.bits, self.codes, self.shape[1], self._threads)
        return bits.reshape(spatial), majority.reshape(spatial), shares.reshape(len(Class), *spatial)


@dataclass(frozen=True, slots=True)
class _Rank:
    """Where a quantile lies: among `count` values between `ends`, from the `first`-th on, `share` of the way."""

    ends: tuple[float, float]
    count: int
    first: int
    last: int
    share: float

    @classmethod
    def of(cls, counts: np.ndarray, share: float) -> _Rank | None:
        """Return the rank of a quantile of values that were counted in bins."""
        ends = np.cumsum(counts)
        total = int(ends[-1])
        if not total:
            return None
        rank = share * (total - 1)
        first = math.floor(rank)
        last = min(first + 1, total - 1)
        low, high = (int(b) for b in np.searchsorted(ends, [first, last], side="right"))
        before = int(ends[low - 1]) if low else 0
        upper = (high + 1) / RANKS_PER_BIT if high + 1 < RANK_BINS else math.inf
        span = low / RANKS_PER_BIT, upper
        return cls(span, int(ends[high]) - before, first - before, last - before, rank - first)

    def value(self, values: np.ndarray) -> float:
        pair = np.partition(values, (self.first, self.last))[[self.first, self.last]]
        # numpy's own interpolation, to the last bit.
        return float(np.quantile(pair, self.share))


def block_moments(reference: Tensor, blocks: Sequence[Sequence[Tensor]], threads: int) -> Moments | None:
    """Return the moments of blocks of samples, merged in order, or None where there is no sweep for them."""
    if not _reducible(reference, blocks):
        return None
    moments = _room(reference, sum(map(len, blocks)))
    plain = [[fused.plain(sample) for sample in block] for block in blocks]
    _reduce(moments, plain, None, threads)
    return moments


def sweep(moments: Moments, estimator: Estimator, masks: Mapping[str, Tensor], threads: int = 1) -> Swept | None:
    """Return the scores of a layer whose moments are there, or None where there is no sweep for it."""
    possible = fused.available(moments.reference) and moments.is_contiguous()
    if estimator.convention != "classes" or moments.n < 2 or not possible:
        return None
    return _scored(moments, [], estimator, masks, threads)


def sweep_samples(
    reference: Tensor, blocks: Sequence[Sequence[Tensor]], estimator: Estimator, masks: Mapping[str, Tensor],
    threads: int, keep: bool,
) -> Swept | None:  # fmt: skip
    """Return the scores of a layer, and its moments where `keep`, from the samples; None where there is no sweep."""
    n = sum(map(len, blocks))
    if estimator.convention != "classes" or n < 2 or not _reducible(reference, blocks):
        return None
    plain = [[fused.plain(sample) for sample in block] for block in blocks]
    moments = _room(reference, n) if keep else _Passing(n, fused.plain(reference))
    return _scored(moments, plain, estimator, masks, threads)


@dataclass(frozen=True, slots=True, eq=False)
class _Passing:
    """Moments that nobody keeps: only the reference has an address."""

    n: int
    reference: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.reference.shape

    def tensors(self) -> list[Tensor | None]:
        return [None, None, None, None, self.reference, None, None, None]


def _reducible(reference: Tensor, blocks: Sequence[Sequence[Tensor]]) -> bool:
    samples = [sample for block in blocks for sample in block]
    return (
        fused.available(reference, *samples)
        and all(blocks)
        and 0 < len(samples) <= MOST_SAMPLES
        and all(sample.shape == reference.shape for sample in samples)
    )


def _room(reference: Tensor, n: int) -> Moments:
    """Return moments of `n` samples that are yet to be written."""
    reference = reference.detach().resolve_neg().clone(memory_format=torch.contiguous_format)
    offset, m2 = (torch.empty_like(reference, dtype=torch.float64) for _ in range(2))
    minimum, maximum = (torch.empty_like(reference) for _ in range(2))
    return Moments(n, offset, m2, minimum, maximum, reference, torch.empty_like(reference, dtype=torch.int16))


def _reduce(
    moments: Moments | _Passing, blocks: list[list[Tensor]], scores: fused.Scores | None, threads: int
) -> None:
    """Write the moments of the blocks, where there are any, and the scores, where they are asked for."""
    elements = moments.reference.numel()
    finite = fused.sweep(elements, blocks, fused.state(moments.tensors()), scores, threads)
    if blocks and not finite and isinstance(moments, Moments):
        # Only now there is something to count.
        nans, infs = torch.empty_like(moments.zeros), torch.empty_like(moments.zeros)
        fused.sweep(elements, blocks, fused.state([*moments.tensors()[:6], nans, infs]), None, threads)
        moments.set_specials(nans, infs)


def _scored(
    moments: Moments | _Passing, blocks: list[list[Tensor]], estimator: Estimator, masks: Mapping[str, Tensor],
    threads: int,
) -> Swept | None:  # fmt: skip
    named = [name for name in positions(moments.shape, masks) if name != ALL]
    if len(named) > MOST_REGIONS:
        return None
    elements, cells, bins = moments.reference.numel(), 1 << len(named), bin_count(moments.reference.dtype)
    combination = COMBINATIONS.index((estimator.method, estimator.reference, estimator.error))
    question = fused.Question(moments.n, combination, shift(moments.n, estimator), LOWEST, PER_BIT, bins, RANKS_PER_BIT,
                              RANK_BINS, cells, len(named))  # fmt: skip
    cell = _cells([masks[name] for name in named])
    bits, codes = np.empty(elements), np.empty(elements, dtype=np.uint8)
    table = np.zeros((len(COMBINATIONS), cells + 1, bins), dtype=np.int64)
    ranks = np.zeros((cells + 1, RANK_BINS), dtype=np.int64)
    kinds = np.zeros((cells, 2, len(Class)), dtype=np.int64)
    sums = np.zeros((-(-elements // fused.chunk()), len(named) + 1))
    scores = fused.Scores(question, fused.address(cell), 1 if cell is None else cell.size,
                          *(fused.address(a) for a in (bits, codes, table, ranks, kinds, sums)))  # fmt: skip
    _reduce(moments, blocks, scores, threads)
    of_region = [np.arange(cells) >= 0] + [(np.arange(cells) >> i) & 1 == 1 for i in range(len(named))]
    by_region = np.stack([kinds[where].sum(0) for where in of_region])
    return Swept(
        n=moments.n,
        shape=tuple(moments.shape),
        regions=(ALL, *named),
        bits=bits,
        codes=codes,
        kinds=by_region.sum(1),
        low_snr=by_region[:, 1].sum(1),
        sums=[math.fsum(column) for column in sums.T],
        scores=np.stack([table[:, :-1][:, where].sum(1) for where in of_region]),
        moments=moments if isinstance(moments, Moments) else None,
        _ranks=np.stack([ranks[:-1][where].sum(0) for where in of_region]),
        _cell=cell,
        _threads=threads,
    )


def _cells(masks: list[Tensor]) -> np.ndarray | None:
    """Return the cell of each position, uint8: bit i tells whether it lies in region i. None without regions."""
    if not masks:
        return None
    widest = max(masks, key=lambda mask: mask.ndim)
    cell = torch.zeros(widest.shape, dtype=torch.uint8)
    for i, mask in enumerate(masks):
        cell |= mask.cpu().to(torch.uint8) << i
    return cell.reshape(-1).numpy()
