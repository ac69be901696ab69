"""What does one compiled sweep over a layer find: classes, bits, counts of scores, all that its products need?

It takes float32 layers on the processor and the convention `classes`; anything else, and a machine without kernels,
goes through torch (significance.py, scores.py), with the same rows up to the rounding of a logarithm.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcaprobe import fused
from mcaprobe.estimators import Class, Estimator, shift
from mcaprobe.moments import MOST_SAMPLES, Moments
from mcaprobe.regions import ALL, positions
from mcaprobe.scores import COMBINATIONS, LOWEST, PER_BIT, bin_count

# More than the rounding of a score less its cost, and less than a bin.
EDGE = 1e-9
# A cell, a combination of regions, is one byte; a channel's count in a map two.
MOST_REGIONS = 7
MOST_CHANNELS = 2**16 - 1


# Room for bits and codes of layers to come: the system fills new memory with zeros, which takes as long as the scores.
_spare: deque[tuple[Any, Any]] = deque(maxlen=1)


def _space(elements: int) -> tuple[np.ndarray, np.ndarray]:
    """Return room for bits and codes: the spare one, where it is large enough."""
    with suppress(IndexError):
        bits, codes = _spare.pop()
        if bits.size >= elements:
            return bits[:elements], codes[:elements]
    return np.empty(elements)[:], np.empty(elements, dtype=np.uint8)[:]


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
    _combination: int
    _cost: float
    _cell: np.ndarray | None
    _threads: int

    def release(self) -> None:
        """Hand the room of bits and codes to the next sweep: neither may be looked at any more."""
        _spare.append((self.bits.base, self.codes.base))

    def percentiles(self, share: float) -> list[float | None]:
        """Return the quantile (linear between ranks) of the bits of the numbers of each region; None without any."""
        wanted = [self._rank(i, share) for i in range(len(self.regions))]
        some = [(i, rank) for i, rank in enumerate(wanted) if rank is not None]
        result: list[float | None] = [None] * len(wanted)
        if some:
            masks = [0 if i == 0 else 1 << (i - 1) for i, _ in some]
            values = fused.select(
                self.bits, self.codes, self._cell, masks, [r.ends for _, r in some], [r.room for _, r in some]
            )
            for (i, rank), mask, found in zip(some, masks, values, strict=True):
                # A number as close to the edge as a rounding may be of the bin below.
                close = bool((found < rank.ends[0] + 2 * EDGE).any())
                result[i] = rank.value(found, self._below(rank.ends[0], mask) if close else rank.below)
        return result

    def _below(self, bits: float, mask: int) -> int:
        """Return how many numbers in the cells with all bits of `mask` have fewer bits."""
        less = (self.bits < bits) & (self.codes == Class.NUMBER)
        if self._cell is not None:
            less = less.reshape(-1, self._cell.size) & (self._cell & mask == mask)
        return int(less.sum())

    def _rank(self, region: int, share: float) -> _Rank | None:
        """Return where a quantile of the numbers of a region lies, None without any."""
        numbers, noise = (int(self.kinds[region, code]) for code in (Class.NUMBER, Class.NOISE))
        if not numbers:
            return None
        rank = share * (numbers - 1)
        first = math.floor(rank)
        last = min(first + 1, numbers - 1)
        # Noise has the lowest scores of all that vary.
        counts = self.scores[region, self._combination]
        ends = np.cumsum(counts)
        low, high = np.searchsorted(ends, [noise + first, noise + last], side="right").tolist()
        lower = LOWEST + low / PER_BIT - self._cost - EDGE if low else -math.inf
        upper = LOWEST + (high + 1) / PER_BIT - self._cost + EDGE if high + 1 < len(counts) else math.inf
        room = int(counts[max(low - 1, 0) : high + 2].sum())
        below = int(ends[low - 1]) - noise if low else 0
        return _Rank((lower, upper), room, max(below, 0), first, last, rank - first)

    def channel_map(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return the map of channel_map() for a layer (1, C, *spatial), or None where it has too many channels."""
        if self.shape[1] > MOST_CHANNELS:
            return None
        spatial = self.shape[2:]
        bits, majority, shares = fused.channel_map(self.bits, self.codes, self.shape[1], self._threads)
        return bits.reshape(spatial), majority.reshape(spatial), shares.reshape(len(Class), *spatial)


@dataclass(frozen=True, slots=True)
class _Rank:
    """Where a quantile lies: `share` of the way from the `first` to the `last` number of a region.

    Among at most `room` of them between `ends`; `below` are lower, unless roundings moved one across an edge.
    """

    ends: tuple[float, float]
    room: int
    below: int
    first: int
    last: int
    share: float

    def value(self, values: np.ndarray, below: int) -> float:
        first, last = self.first - below, self.last - below
        pair = np.partition(values, (first, last))[[first, last]]
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


def _reduce(moments: Moments | _Passing, blocks: list[list[Tensor]], scores: fused.Scores | None, threads: int) -> None:
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
    cost = shift(moments.n, estimator)
    question = fused.Question(moments.n, combination, cost, LOWEST, PER_BIT, bins, cells, len(named))
    cell = _cells([masks[name] for name in named])
    bits, codes = _space(elements)
    table = np.zeros((len(COMBINATIONS), cells, bins), dtype=np.int64)
    kinds = np.zeros((cells, 2, len(Class)), dtype=np.int64)
    sums = np.zeros((-(-elements // fused.chunk()), len(named) + 1))
    scores = fused.Scores(question, fused.address(cell), 1 if cell is None else cell.size,
                          *(fused.address(a) for a in (bits, codes, table, kinds, sums)))  # fmt: skip
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
        scores=np.stack([table[:, where].sum(1) for where in of_region]),
        moments=moments if isinstance(moments, Moments) else None,
        _combination=combination,
        _cost=cost,
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
