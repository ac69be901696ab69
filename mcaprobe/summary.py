"""What does a layer look like in one line of a table?

The other two ways to make a layer small can be imported from here too: Histogram (histogram.py) keeps
enough for the line of another estimator, channel_map (channels.py) is the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcaprobe.channels import channel_map
from mcaprobe.estimators import DEFAULT, Class, Estimator
from mcaprobe.histogram import Histogram
from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import Moments
from mcaprobe.regions import positions, select
from mcaprobe.rows import Row, share_fields
from mcaprobe.significance import score, snr_below_one

__all__ = ["Histogram", "Row", "channel_map", "summarize"]


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
        m: Moments of a floating layer, or IndexMoments of a pool's indices.
        masks: Bool, of the layer's spatial shape (its last dimensions), by region name.
        layer, operator: Names for the rows.
    """
    masks = masks or {}
    where = positions(m.shape, masks)
    names: dict[str, Any] = {"layer": layer, "operator": operator, "shape": tuple(m.shape), "samples": m.n}
    if isinstance(m, IndexMoments):
        rates = m.change_rate()
        parts = {name: select(rates, masks, name, index) for name, index in where.items()}
        return [
            Row(region=name, elements=part.numel(), index_change_rate=_mean(part), **names)
            for name, part in parts.items()
        ]
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


def _mean(values: Tensor) -> float | None:
    return float(values.double().mean()) if values.numel() else None
