"""What does a layer look like in one line of a table?

The other two ways to make a layer small can be imported from here too: Histogram (histogram.py) keeps
enough for the line of another estimator, channel_map (channels.py) is the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcaprobe.channels import channel_map
from mcaprobe.estimators import DEFAULT, Class, Estimator
from mcaprobe.histogram import Histogram
from mcaprobe.index_moments import IndexMoments
from mcaprobe.lane_blocks import LaneBlocks
from mcaprobe.moments import Moments
from mcaprobe.regions import in_groups, positions, select
from mcaprobe.rows import Row, share_fields
from mcaprobe.significance import score, snr_below_one
from mcaprobe.sweep import MOST_REGIONS, Swept, sweep, sweep_samples

__all__ = ["Digest", "Histogram", "Row", "channel_map", "digest", "summarize"]


@dataclass(frozen=True, slots=True)
class Digest:
    """All that is kept of a layer.

    Attributes:
        picture: What channel_map() returns; None where it was not asked for.
        moments: None where they were not asked for.
    """

    rows: list[Row]
    histogram: Histogram
    picture: tuple[Tensor, Tensor, Tensor] | None
    moments: Moments | IndexMoments | None


def digest(
    source: Moments | IndexMoments | LaneBlocks,
    estimator: Estimator = DEFAULT,
    masks: Mapping[str, Tensor] | None = None,
    *,
    layer: str = "",
    operator: str = "",
    picture: bool = False,
    keep: bool = False,
    threads: int = 1,
) -> Digest:
    """Return summarize(), Histogram.of(), channel_map() and the moments of a layer, in one sweep where possible.

    Args:
        source: The moments, or the samples. The bits of the result are the same.
        picture: Whether the map is wanted, of a floating layer of shape (1, C, *spatial).
        keep: Whether the moments are wanted.
    """
    first, *more = in_groups(masks or {}, MOST_REGIONS)
    found = _digest(source, estimator, first, {"layer": layer, "operator": operator}, picture, keep, threads)
    if not more:
        return found
    again = source if found.moments is None else found.moments
    parts = [_digest(again, estimator, group, {"layer": layer, "operator": operator}, False, False, threads)
             for group in more]  # fmt: skip
    return replace(
        found,
        rows=[*found.rows, *(row for part in parts for row in part.rows[1:])],
        histogram=Histogram.joined([found.histogram, *(part.histogram for part in parts)]),
    )


def _digest(
    source: Moments | IndexMoments | LaneBlocks, estimator: Estimator, masks: Mapping[str, Tensor],
    names: Mapping[str, Any], picture: bool, keep: bool, threads: int,
) -> Digest:  # fmt: skip
    """Return the digest with a few regions only: no more than one sweep takes."""
    swept = None
    if isinstance(source, LaneBlocks):
        swept = sweep_samples(source.reference, source.samples(), estimator, masks, threads, keep)
        if swept is None:
            source = source.total()
    if isinstance(source, Moments):
        swept = sweep(source, estimator, masks, threads)
    if swept is not None:
        image = swept.channel_map() if picture else None
        rows = _rows(swept, estimator, names)
        swept.release()
        if image is not None or not picture:
            return Digest(rows, Histogram.of_sweep(swept), image, swept.moments if keep else None)
    total = source.total() if isinstance(source, LaneBlocks) else source
    image = channel_map(total, estimator) if picture and isinstance(total, Moments) else None
    rows = summarize(total, estimator, masks, **names)
    return Digest(rows, Histogram.of(total, masks), image, total if keep else None)


def summarize(
    m: Moments | IndexMoments,
    estimator: Estimator = DEFAULT,
    masks: Mapping[str, Tensor] | None = None,
    *,
    layer: str = "",
    operator: str = "",
) -> list[Row]:
    """Return one Row for the whole layer (region `all`) and one for each mask.

    Args:
        m: Moments of a floating layer, or IndexMoments of decisions.
        masks: Bool, of the layer's spatial shape (its last dimensions), by region name.
        layer, operator: Names for the rows.
    """
    masks = masks or {}
    if len(masks) > MOST_REGIONS:
        first, *more = (summarize(m, estimator, group, layer=layer, operator=operator)
                        for group in in_groups(masks, MOST_REGIONS))  # fmt: skip
        return [*first, *(row for rows in more for row in rows[1:])]
    where = positions(m.shape, masks)
    names: dict[str, Any] = {"layer": layer, "operator": operator, "shape": tuple(m.shape), "samples": m.n}
    if isinstance(m, IndexMoments):
        rates = m.change_rate()
        parts = {name: select(rates, masks, name, index) for name, index in where.items()}
        return [
            Row(region=name, elements=part.numel(), index_change_rate=_mean(part), **names)
            for name, part in parts.items()
        ]
    swept = sweep(m, estimator, masks)
    if swept is not None:
        return _rows(swept, estimator, {"layer": layer, "operator": operator})
    bits, codes = score(m, estimator)
    low = snr_below_one(m)
    rows = []
    for name, index in where.items():
        kinds = select(codes, masks, name, index)
        numbers = select(bits, masks, name, index)[kinds == Class.NUMBER]
        rows.append(
            Row(
                region=name,
                elements=kinds.numel(),
                bits_mean=_mean(numbers),
                bits_p05=float(np.quantile(numbers.cpu().numpy(), 0.05)) if numbers.numel() else None,
                share_snr_below_1=_mean(select(low, masks, name, index)),
                estimator=str(estimator),
                **share_fields(torch.bincount(kinds.int(), minlength=len(Class)).tolist()),
                **names,
            )
        )
    return rows


def _rows(swept: Swept, estimator: Estimator, names: Mapping[str, Any]) -> list[Row]:
    rows = []
    for i, (region, percentile) in enumerate(zip(swept.regions, swept.percentiles(0.05), strict=True)):
        elements, numbers = int(swept.kinds[i].sum()), int(swept.kinds[i, Class.NUMBER])
        rows.append(
            Row(
                region=region,
                shape=swept.shape,
                elements=elements,
                samples=swept.n,
                bits_mean=swept.sums[i] / numbers if numbers else None,
                bits_p05=percentile,
                share_snr_below_1=int(swept.low_snr[i]) / elements if elements else None,
                estimator=str(estimator),
                **share_fields(swept.kinds[i].tolist()),
                **names,
            )
        )
    return rows


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if values.numel() else None
