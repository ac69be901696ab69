"""One line of the table of layers: its columns and their units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcaprobe.estimators import Class


@dataclass(frozen=True, slots=True)
class Row:
    """Significant bits and classes of one layer in one region; None where a value does not apply.

    Attributes:
        shape: Of the whole layer. elements: those in the region, or its decisions.
        bits_mean, bits_p05: Mean and 5th percentile (linear between ranks) of the significant bits of the
            elements of class NUMBER, unclipped; None where there is none.
        share_*: Share of the elements of each class; they add up to 1.
        share_snr_below_1: Share of the elements that vary with std >= |mean| (ddof 0), whatever their class.
        index_change_rate: Share of the decisions (indices of a pooling, labels) that differ from the IEEE run,
            mean over samples; None unless the layer holds decisions, for which all of the above is None.
        samples: How many samples were taken. estimator: in words, what the bits mean.
    """

    layer: str
    operator: str
    region: str
    shape: tuple[int, ...]
    elements: int
    bits_mean: float | None = None
    bits_p05: float | None = None
    share_number: float | None = None
    share_noise: float | None = None
    share_zero: float | None = None
    share_exact: float | None = None
    share_shifted: float | None = None
    share_nan: float | None = None
    share_inf: float | None = None
    share_undefined: float | None = None
    share_snr_below_1: float | None = None
    index_change_rate: float | None = None
    samples: int | None = None
    estimator: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the columns as plain JSON values, `shape` as a list."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


def share_fields(counts: Sequence[float]) -> dict[str, Any]:
    """Return the columns share_* of the element counts of the eight classes; None in an empty region."""
    total = sum(counts)
    return {f"share_{kind.name.lower()}": float(counts[kind]) / total if total else None for kind in Class}
