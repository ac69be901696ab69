"""Are there enough digits? The gate of `--fail-below`."""

from collections.abc import Iterable
from dataclasses import dataclass

from mcaprobe.summary import Row

REGIONS = ("brain", "all")


@dataclass(frozen=True, slots=True)
class Failure:
    """A layer below the gate: its bits, and the region they are of."""

    layer: str
    region: str
    bits: float

    def __str__(self) -> str:
        return f"{self.layer} ({self.region}): {self.bits:.2f} bits"


def gated_bits(row: Row) -> float | None:
    """Return the mean significant bits of the elements of a row that rounding touches; None where it touches none.

    Numbers count with their bits; noise, NaN, inf and undefined elements count with 0 bits, so that a layer of noise
    does not pass for the few numbers left in it. Elements that are zero, exact or shifted in all samples have lost no
    digits between samples and do not count. Decisions have no bits.
    """
    lost = sum(s or 0.0 for s in (row.share_noise, row.share_nan, row.share_inf, row.share_undefined))
    numbers = row.share_number or 0.0
    if row.index_change_rate is not None or numbers + lost == 0:
        return None
    return (row.bits_mean or 0.0) * numbers / (numbers + lost)


def below(rows: Iterable[Row], bits: float) -> list[Failure]:
    """Return the layers with fewer than `bits` bits, in the brain where there is a mask, else in the whole layer."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.region in REGIONS:
            known = best.get(row.layer)
            if known is None or REGIONS.index(row.region) < REGIONS.index(known.region):
                best[row.layer] = row
    failures = []
    for row in best.values():
        value = gated_bits(row)
        if value is not None and value < bits:
            failures.append(Failure(row.layer, row.region, value))
    return failures
