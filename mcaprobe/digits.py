"""How many digits, by another estimator, without a new run?"""

from collections.abc import Sequence
from dataclasses import dataclass

from mcaprobe.errors import InputError
from mcaprobe.layer_result import LayerResult
from mcaprobe.result import Result
from mcaprobe.settings import expect_matches, matches
from mcaprobe.statistics import Estimator
from mcaprobe.storage import DamagedFile
from mcaprobe.summary import Row, summarize


@dataclass(frozen=True)
class Recomputed:
    """Rows of another estimator.

    Attributes:
        rows: In the order of the layers.
        exact: Layers computed from the moments of each element.
        binned: Layers computed from histograms: bits are right within 1/16.
    """

    rows: list[Row]
    exact: list[str]
    binned: list[str]


def recompute(result: Result, estimator: Estimator, layers: str | Sequence[str] = "*") -> Recomputed:
    """Return the rows of the layers by `estimator`, from the moments where they were kept, else from the histograms.

    Raises:
        InputError: a glob matches no layer, the convention needs moments that were not kept, or a file is damaged.
    """
    globs = [layers] if isinstance(layers, str) else list(layers)
    expect_matches("The layer glob", globs, result.layers)
    found = Recomputed([], [], [])
    try:
        for name in result.layers:
            if matches(name, globs):
                layer = result[name]
                found.rows.extend(rows_of(layer, estimator))
                (found.exact if is_exact(layer) else found.binned).append(name)
    except DamagedFile as error:
        raise InputError(f"The run in {result.path} is damaged: {error}.") from error
    return found


def rows_of(layer: LayerResult, estimator: Estimator) -> list[Row]:
    """Return the rows of one layer by `estimator`, one a region: exactly from its moments, else from its histogram."""
    if layer.kept:
        return summarize(layer.moments, estimator, layer.masks, layer=layer.name, operator=layer.operator)
    return layer.histogram.rows(estimator, layer=layer.name, operator=layer.operator)


def is_exact(layer: LayerResult) -> bool:
    """Return whether rows_of() is exact: from moments, or of decisions; else bits are right within 1/16."""
    return layer.kept or layer.histogram.is_index
