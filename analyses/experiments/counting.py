"""What was skipped, summed over forwards: windows and multiply-accumulates of each layer."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanops.accounting import Skipped, Totals

Row = dict[str, Any]
Tables = dict[str, list[Row]]
SUMS = ("windows", "skipped", "uniform", "macs", "spared", "executed")
TOTAL = "total"
BRAIN, WHOLE = "brain slices", "whole volume"


@dataclass
class Counts:
    """Sums of windows and multiply-accumulates by layer."""

    layers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * len(SUMS)))

    def add(self, skipped: Skipped, times: int = 1) -> None:
        """Add what one forward counted, as often as it stands for."""
        for layer, totals in skipped.layers.items():
            sums = self.layers[layer]
            for i, value in enumerate(sums_of(totals)):
                sums[i] += times * value

    def rows(self, about: Row, scope: str) -> Iterator[Row]:
        """Yield a row for each layer, and one in total with the paper's figure: the mean of the layers' shares."""
        for layer, sums in self.layers.items():
            yield about | {"scope": scope, "layer": layer} | shares(sums)
        sums = [sum(column) for column in zip(*self.layers.values(), strict=True)]
        mean = sum(s[1] / s[0] for s in self.layers.values()) / len(self.layers)
        yield about | {"scope": scope, "layer": TOTAL} | shares(sums) | {"mean_over_layers": mean}


def merge(tables: Tables, more: Tables) -> None:
    """Put the rows of more tables at the end of those of the same name."""
    for name, rows in more.items():
        tables.setdefault(name, []).extend(rows)


def sums_of(totals: Totals) -> list[int]:
    """Return the counts in the order of SUMS."""
    return [getattr(totals, name) for name in SUMS]


def shares(sums: Sequence[int]) -> Row:
    """Return the cells of counts: windows, and shares of them and of the multiply-accumulates."""
    windows, skipped, uniform, macs, spared, executed = sums
    return {
        "windows": windows, "skipped": skipped, "filled": uniform, "window_share": skipped / windows,
        "mac_share": spared / macs, "executed_share": executed / macs,
    }  # fmt: skip
