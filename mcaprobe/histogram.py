"""What must be kept of a layer for its table rows under any estimator, without per-element moments?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import DEFAULT, Class, Estimator, shift
from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import CHUNK, Moments, expect_keys
from mcaprobe.regions import ALL, in_groups, positions, select
from mcaprobe.rows import Row, share_fields
from mcaprobe.scores import COMBINATIONS, LOWEST, PER_BIT, bin_count, raw_scores
from mcaprobe.significance import fixed_classes, snr_below_one
from mcaprobe.sweep import MOST_REGIONS, Swept, sweep

__all__ = ["COMBINATIONS", "Histogram"]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of the raw scores of a layer, by region and by method x reference x error.

    Attributes:
        n: Samples.
        shape: Of the layer.
        regions: Names; `all` is the first.
        counts: int64 (regions, 8, bins), in the order of COMBINATIONS: elements that vary, by raw_score().
            Bin b holds [LOWEST + b / 16, LOWEST + (b + 1) / 16); the first also everything below (reference
            0 included), the last everything above. No bins for decisions.
        fixed: int64 (regions, 8), elements of each class that no estimator changes; NUMBER stands for those
            that vary. Of decisions NUMBER counts all.
        low_snr: int64 (regions,), elements with std >= |mean|; of decisions those that differ from the IEEE run,
            summed over samples.
    """

    n: int
    shape: tuple[int, ...]
    regions: tuple[str, ...]
    counts: Tensor
    fixed: Tensor
    low_snr: Tensor

    @classmethod
    def of(cls, m: Moments | IndexMoments, masks: Mapping[str, Tensor] | None = None) -> Histogram:
        """Return the histogram of a layer; masks as for summarize()."""
        masks = masks or {}
        where = positions(m.shape, masks)
        if isinstance(m, IndexMoments):
            changes = [select(m.changes, masks, name, index) for name, index in where.items()]
            counts = torch.zeros(len(where), len(COMBINATIONS), 0, dtype=torch.int64)
            fixed = torch.zeros(len(where), len(Class), dtype=torch.int64)
            fixed[:, Class.NUMBER] = torch.tensor([part.numel() for part in changes])
            changed = torch.tensor([int(part.sum()) for part in changes])
            return cls(m.n, tuple(m.shape), tuple(where), counts, fixed, changed)
        if len(masks) > MOST_REGIONS:  # a count has a cell for each combination of regions
            return cls.joined([cls.of(m, group) for group in in_groups(masks, MOST_REGIONS)])
        swept = sweep(m, DEFAULT, masks)
        if swept is not None:
            return cls.of_sweep(swept)
        codes, low = fixed_classes(m), snr_below_one(m)
        fixed = torch.stack(
            [
                torch.bincount(select(codes, masks, name, index).int(), minlength=len(Class))
                for name, index in where.items()
            ]
        )
        low_snr = torch.stack([select(low, masks, name, index).sum() for name, index in where.items()])
        counts = _score_counts(m, codes == Class.NUMBER, masks, list(where))
        return cls(m.n, tuple(m.shape), tuple(where), counts.cpu(), fixed.cpu(), low_snr.cpu())

    @classmethod
    def joined(cls, parts: Sequence[Histogram]) -> Histogram:
        """Return one histogram of a layer with the regions of all parts; each part has `all` as its first region."""
        first, names = parts[0], [name for part in parts for name in part.regions[1:]]
        counts, fixed, low = (
            torch.cat([getattr(first, key)[:1], *(getattr(part, key)[1:] for part in parts)])
            for key in ("counts", "fixed", "low_snr")
        )
        return cls(first.n, first.shape, (ALL, *names), counts, fixed, low)

    @classmethod
    def of_sweep(cls, swept: Swept) -> Histogram:
        """Return the histogram of a layer that was swept, for whatever estimator."""
        fixed = swept.kinds.copy()
        fixed[:, Class.NUMBER] += fixed[:, Class.NOISE]
        fixed[:, Class.NOISE] = 0
        counts = (torch.from_numpy(a) for a in (swept.scores, fixed, swept.low_snr))
        return cls(swept.n, swept.shape, swept.regions, *counts)

    @property
    def is_index(self) -> bool:
        """Whether the layer holds decisions."""
        return self.counts.shape[2] == 0

    def row(self, estimator: Estimator = DEFAULT, region: str = ALL, *, layer: str = "", operator: str = "") -> Row:
        """Return the Row of a region: bits to 1/16 (General exactly), shares to the elements of one bin."""
        if region not in self.regions:
            raise InputError(f"Expected a region of {', '.join(self.regions)}, got {region!r}.")
        if estimator.convention == "published":
            raise InputError("The published convention needs per-element moments; a histogram has none.")
        at = self.regions.index(region)
        elements = int(self.fixed[at].sum())
        names: dict[str, Any] = {"layer": layer, "operator": operator, "region": region}
        names |= {"shape": self.shape, "elements": elements, "samples": self.n}
        if self.is_index:
            total = elements * self.n
            return Row(index_change_rate=int(self.low_snr[at]) / total if total else None, **names)
        bits, weights = self._numbers(estimator, at)
        kinds = self.fixed[at].tolist()
        numbers = int(weights.sum())
        kinds[Class.NOISE] = kinds[Class.NUMBER] - numbers
        kinds[Class.NUMBER] = numbers
        return Row(
            bits_mean=float((bits * weights).sum() / numbers) if numbers else None,
            bits_p05=_quantile(bits, weights, 0.05) if numbers else None,
            share_snr_below_1=int(self.low_snr[at]) / elements if elements else None,
            estimator=str(estimator),
            **share_fields(kinds),
            **names,
        )

    def rows(self, estimator: Estimator = DEFAULT, *, layer: str = "", operator: str = "") -> list[Row]:
        """Return the Row of each region."""
        return [self.row(estimator, region, layer=layer, operator=operator) for region in self.regions]

    def _numbers(self, estimator: Estimator, at: int) -> tuple[Tensor, Tensor]:
        """Return bits (float64) and counts (int64) of the bins, or parts of one, that are above 0 bits."""
        combination = (estimator.method, estimator.reference, estimator.error)
        counts = self.counts[at, COMBINATIONS.index(combination)]
        edges = LOWEST + torch.arange(len(counts), dtype=torch.float64) / PER_BIT
        if estimator.method == "general":
            # Integers lie on the lower edge of their bin.
            return edges[edges > 0], counts[edges > 0]
        cost = shift(self.n, estimator)
        if cost < LOWEST + 1 / PER_BIT:
            raise InputError(f"Expected a probability that costs more than {LOWEST} bits, got {cost:.1f}.")
        low, high = edges - cost, edges + 1 / PER_BIT - cost
        above = (high * PER_BIT).clamp(0, 1)
        return (low.clamp(min=0) + high) / 2, (counts * above).round().long() * (high > 0)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that from_state() needs; the region names as UTF-8 bytes."""
        names = torch.tensor(list("\n".join(self.regions).encode()), dtype=torch.uint8)
        return {
            "n": torch.tensor(self.n),
            "shape": torch.tensor(self.shape, dtype=torch.int64),
            "regions": names,
            "counts": self.counts.int(),
            "fixed": self.fixed,
            "low_snr": self.low_snr,
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Histogram:
        """Return the histogram whose state() is `state`."""
        expect_keys("a histogram", state, {"n", "shape", "regions", "counts", "fixed", "low_snr"})
        names = bytes(state["regions"].tolist()).decode().split("\n")
        return cls(
            int(state["n"]),
            tuple(state["shape"].tolist()),
            tuple(names),
            state["counts"].long(),
            state["fixed"],
            state["low_snr"],
        )


def _score_counts(m: Moments, varies: Tensor, masks: Mapping[str, Tensor], regions: list[str]) -> Tensor:
    """Count the raw scores of the elements that vary: int64 (regions, 8, bins)."""
    bins = bin_count(m.reference.dtype)
    named = [name for name in regions if name != ALL]
    # Bit i of an element's membership: it lies in named region i. One count serves all regions.
    membership = torch.zeros(m.shape, dtype=torch.int64, device=m.reference.device)
    for i, name in enumerate(named):
        membership += masks[name].to(membership.device).long() << i
    table = torch.zeros(len(COMBINATIONS), bins << len(named), dtype=torch.int64, device=membership.device)
    # Chunks keep the many float64 temporaries in the cache.
    for kept in varies.reshape(-1).nonzero().squeeze(1).split(CHUNK):
        first_bin = membership.reshape(-1)[kept].mul_(bins)
        for combination, bits in raw_scores(m.take(kept)):
            bits.sub_(LOWEST).mul_(PER_BIT).nan_to_num_(nan=0.0).clamp_(0, bins - 1)
            at = bits.long().add_(first_bin)
            table[COMBINATIONS.index(combination)] += torch.bincount(at, minlength=table.shape[1])
    table = table.reshape(len(COMBINATIONS), -1, bins)
    codes = torch.arange(1 << len(named), device=table.device)
    chosen = [table.sum(1)] + [table[:, (codes >> i) & 1 == 1].sum(1) for i in range(len(named))]
    return torch.stack(chosen)


def _quantile(values: Tensor, weights: Tensor, q: float) -> float:
    """Return the q quantile, linear between ranks, of increasing `values` that occur `weights` times."""
    ends = weights.cumsum(0)
    rank = q * (int(ends[-1]) - 1)
    whole = int(rank)
    at = torch.searchsorted(ends, torch.tensor([whole, min(whole + 1, int(ends[-1]) - 1)]), right=True)
    low, high = values[at].tolist()
    return float(low + (rank - whole) * (high - low))
