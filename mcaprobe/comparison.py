"""How do two runs of one model differ, layer by layer?  One layer of both is in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mcaprobe.agreement import Agreement
from mcaprobe.digits import rows_of
from mcaprobe.errors import InputError
from mcaprobe.layer_result import LayerResult
from mcaprobe.masks import Unstable
from mcaprobe.moments import Moments
from mcaprobe.pairing import Missing, pair
from mcaprobe.regions import positions, select
from mcaprobe.result import Result, load
from mcaprobe.rows import Row
from mcaprobe.spread import std_ratio, varies
from mcaprobe.statistics import Estimator
from mcaprobe.storage import DamagedFile


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One layer in one region, in run A and in run B; None where a value does not apply.

    Attributes:
        elements: Those in the region, or its decisions. samples_*: n of the run.
        source_*: `moments`, or `histogram` where none were kept: then bits are right within 1/16, and all below
            index_change_rate_b is None, since it needs the moments of both.
        bits_mean_*: Mean significant bits of the elements of class NUMBER. share_noise_*: Share of class NOISE.
        index_change_rate_*: Share of the decisions (indices of a pooling, labels) that differ from the run's own IEEE
            run; None but for decisions, for which all below it is None as well.
        vary_a, vary_b, vary_both: Elements that are finite and not the same in all samples.
        std_ratio: `spread.std_ratio` over the elements that vary in both.
        ieee_differs: Share of the elements whose unperturbed value is not the same in A and B.
        unstable_a, unstable_b, unstable_both: Elements marked by the mask (`masks.Unstable`) of A, B, both.
        dice, precision, recall: `agreement.Agreement` of A's mask with B's.
    """

    layer: str
    operator: str
    region: str
    shape: tuple[int, ...]
    elements: int
    samples_a: int
    samples_b: int
    source_a: str
    source_b: str
    bits_mean_a: float | None = None
    bits_mean_b: float | None = None
    share_noise_a: float | None = None
    share_noise_b: float | None = None
    index_change_rate_a: float | None = None
    index_change_rate_b: float | None = None
    vary_a: int | None = None
    vary_b: int | None = None
    vary_both: int | None = None
    std_ratio: float | None = None
    ieee_differs: float | None = None
    unstable_a: int | None = None
    unstable_b: int | None = None
    unstable_both: int | None = None
    dice: float | None = None
    precision: float | None = None
    recall: float | None = None

    @property
    def is_index(self) -> bool:
        """Whether the layer holds decisions."""
        return self.index_change_rate_a is not None

    def as_dict(self) -> dict[str, Any]:
        """Return the columns as plain JSON values, `shape` as a list."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


@dataclass(frozen=True)
class Comparison:
    """Two runs, what both were scored by, and what was found.

    Attributes:
        estimator: Of the bits and classes of both runs, whatever theirs was.
        unstable: Which elements the masks mark.
        rows: In A's order of execution, one a layer and region.
        missing: Layers that only one run has.
    """

    a: Result
    b: Result
    estimator: Estimator
    unstable: Unstable
    rows: list[ComparedRow]
    missing: list[Missing]


def compare(
    a: Result | str | Path,
    b: Result | str | Path,
    *,
    estimator: Estimator | None = None,
    below: float = 1.0,
    layers: str | Sequence[str] = "*",
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Comparison:
    """Compare two finished runs of one model on one input, layer by layer.

    Args:
        a, b: Results, or run directories.
        estimator: Of the significant bits of both; None: A's.
        below: Elements with fewer significant bits are unstable, as are those of class noise.
        layers: Globs.
        progress: Told how many layers are done, of how many, and the name of the next.
    Raises:
        InputError: no run directory, not complete or damaged; another model, input or shape; or no common layer.
    """
    one, two = (run if isinstance(run, Result) else load(run) for run in (a, b))
    unstable = Unstable(below)
    estimator = estimator or one.estimator
    found = pair(one, two, [layers] if isinstance(layers, str) else layers)
    rows: list[ComparedRow] = []
    for done, name in enumerate(found.layers):
        progress(done, len(found.layers), name)
        rows += compare_layer(_whole(one, name, "A"), _whole(two, name, "B"), estimator, unstable)
    return Comparison(one, two, estimator, unstable, rows, found.missing)


def _whole(run: Result, name: str, letter: str) -> LayerResult:
    """Return a layer whose file has been read; InputError where that cannot be."""
    layer = LayerResult(run, name)
    try:
        _ = layer.kept
    except DamagedFile as error:
        raise InputError(f"The run {letter} in {run.path} is damaged: {error}.") from error
    return layer


def compare_layer(a: LayerResult, b: LayerResult, estimator: Estimator, unstable: Unstable) -> list[ComparedRow]:
    """Return the rows of one layer of two runs: all of it, and each region of the mask."""
    mine, theirs = ({row.region: row for row in rows_of(layer, estimator)} for layer in (a, b))
    _expect_same_regions(a.name, mine, theirs)
    details = element_columns(a, b, estimator, unstable) if a.kept and b.kept else {}
    return [
        ComparedRow(
            layer=a.name,
            operator=row.operator,
            region=region,
            shape=tuple(row.shape),
            elements=row.elements,
            source_a=_source(a),
            source_b=_source(b),
            **_side("a", row),
            **_side("b", theirs[region]),
            **details.get(region, {}),
        )
        for region, row in mine.items()
    ]


def _source(layer: LayerResult) -> str:
    return "moments" if layer.kept else "histogram"


def _side(letter: str, row: Row) -> dict[str, Any]:
    names = ("samples", "bits_mean", "share_noise", "index_change_rate")
    return {f"{name}_{letter}": getattr(row, name) for name in names}


def element_columns(
    a: LayerResult, b: LayerResult, estimator: Estimator, unstable: Unstable
) -> dict[str, dict[str, Any]]:
    """Return the columns that need the moments of each element of both runs, by region; none for decisions."""
    one, two = a.moments, b.moments
    if not (isinstance(one, Moments) and isinstance(two, Moments)):
        return {}
    masks = a.masks
    both = varies(one), varies(two)
    marked = unstable.mask(one, estimator), unstable.mask(two, estimator)
    # Not !=: a NaN in both is the same.
    differs = (one.reference != two.reference) & ~(one.reference.isnan() & two.reference.isnan())
    found = {}
    for region, place in positions(one.shape, masks).items():

        def part(values: Tensor, region: str = region, place: Tensor | None = place) -> Tensor:
            return select(values, masks, region, place)

        here, there = (part(t) for t in both)
        where = here & there
        agreement = Agreement.of(*(part(t) for t in marked))
        found[region] = {
            "vary_a": int(here.sum()), "vary_b": int(there.sum()), "vary_both": int(where.sum()),
            "std_ratio": std_ratio(part(one.m2)[where], one.n, part(two.m2)[where], two.n),
            "ieee_differs": float(part(differs).double().mean()) if where.numel() else None,
            "unstable_a": agreement.a, "unstable_b": agreement.b, "unstable_both": agreement.both,
            "dice": agreement.dice, "precision": agreement.precision, "recall": agreement.recall,
        }  # fmt: skip
    return found


def _expect_same_regions(layer: str, a: Mapping[str, Row], b: Mapping[str, Row]) -> None:
    """Raise InputError where the runs cut a layer into other regions: their brain masks differ."""
    one, two = ({name: row.elements for name, row in rows.items()} for rows in (a, b))
    if one != two:
        shown = [", ".join(f"{name} {count}" for name, count in sizes.items()) for sizes in (one, two)]
        raise InputError(
            f"Expected two runs with one brain mask, got {layer} with elements in {shown[0]} in A and {shown[1]} in B."
        )
