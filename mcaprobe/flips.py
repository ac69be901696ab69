"""How often does each decision of a network flip, and what do n samples say of those that never did?

(Not decisions.py: a module of that name would hide the function `mcaprobe.decisions`.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcaprobe.errors import InputError
from mcaprobe.estimators import supported_probability
from mcaprobe.index_moments import IndexMoments
from mcaprobe.layer_result import LayerResult
from mcaprobe.regions import positions, select
from mcaprobe.result import Result, load
from mcaprobe.settings import expect_matches, matches
from mcaprobe.storage import DamagedFile


@dataclass(frozen=True, slots=True)
class Decision:
    """The decisions of one selection step in one region. One flips in a sample where it differs from the IEEE run.

    Attributes:
        step: What selects: `pool` (indices of a max pooling), `unpool` (positions that an unpooling writes to, where
            they are no pooling's indices as they are), `labels` (of the output) or `argmax` (called by the model).
        layer: Name of the layer. aliases: Other names of the very same decisions, such as `decode1.unpool.targets`.
        shape: Of the whole layer.
        region: `all`, or `brain` and `background` where there is a mask.
        decisions: How many there are in the region.
        flip_rate: Share that flips, mean over decisions and samples; None in an empty region. It carries no interval:
            decisions of one network are not independent.
        n: Samples.
        confidence: Of the claim below.
        flipped_once: Share of the decisions that flipped in at least one sample; None where no moments were kept.
        largest_rate: Share of the samples in which the decision that flipped most often did; likewise.
    """

    step: str
    layer: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    region: str
    decisions: int
    flip_rate: float | None
    n: int
    confidence: float
    flipped_once: float | None = None
    largest_rate: float | None = None

    @property
    def never_seen_at_most(self) -> float:
        """The largest share of all runs in which a decision flips that flipped in no sample: 1 - (1 - c)^(1/n)."""
        return 1 - supported_probability(self.n, self.confidence)

    @property
    def claim(self) -> str:
        """What the samples can and cannot say of decisions that never flipped."""
        return claim(self.n, self.confidence)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, with `never_seen_at_most`."""
        return dataclasses.asdict(self) | {
            "aliases": list(self.aliases), "shape": list(self.shape), "never_seen_at_most": self.never_seen_at_most,
        }  # fmt: skip


def claim(n: int, confidence: float) -> str:
    """Return in words what n samples can and cannot say of a decision that never flipped."""
    share = 1 - supported_probability(n, confidence)
    return (
        f"A decision that flips in a share q of all runs flips in none of {n} with probability (1 - q)^{n}. "
        f"At {confidence:.0%} confidence a decision that never flipped flips in at most {share:.2f} of all runs."
    )


def decisions(
    run: Result | str | Path, layers: str | Sequence[str] = "*", confidence: float | None = None
) -> list[Decision]:
    """Return how often the decisions of each selection step of a run flip, one entry for each layer and region.

    Args:
        run: A result, or a run directory.
        layers: Globs of layers (not of aliases).
        confidence: Of the claim on decisions that never flipped; None: that of the run's estimator.
    Returns:
        In the order of execution; none where the run recorded no decisions.
    Raises:
        InputError: no run directory, a glob that matches no layer, a confidence outside (0, 1), or a damaged run.
    """
    result = run if isinstance(run, Result) else load(run)
    globs = [layers] if isinstance(layers, str) else list(layers)
    expect_matches("The layer glob", globs, result.layers)
    confidence = result.estimator.confidence if confidence is None else confidence
    supported_probability(result.samples, confidence)  # refuses a confidence that is none
    chosen = [result[name] for name in result.layers if matches(name, globs)]
    try:
        return [found for layer in chosen if layer.is_index for found in _of_layer(result, layer, confidence)]
    except DamagedFile as error:
        raise InputError(f"The run in {result.path} is damaged: {error}.") from error


def _of_layer(result: Result, layer: LayerResult, confidence: float) -> Iterator[Decision]:
    aliases = tuple(sorted(other for other, name in result.manifest["aliases"].items() if name == layer.name))
    kept = _kept_shares(layer)
    for row in layer.rows:
        once, largest = kept.get(row.region, (None, None))
        yield Decision(
            step=layer.step or "",
            layer=layer.name,
            aliases=aliases,
            shape=layer.shape,
            region=row.region,
            decisions=row.elements,
            flip_rate=row.index_change_rate,
            n=row.samples or result.samples,
            confidence=confidence,
            flipped_once=once,
            largest_rate=largest,
        )


def _kept_shares(layer: LayerResult) -> dict[str, tuple[float, float]]:
    """Return the share that flipped at least once, and the largest rate, of each region that has decisions."""
    moments = layer.moments if layer.kept else None
    if not isinstance(moments, IndexMoments):
        return {}
    masks, found = layer.masks, {}
    for region, where in positions(moments.shape, masks).items():
        changes = select(moments.changes, masks, region, where)
        if changes.numel():
            found[region] = float((changes > 0).double().mean()), int(changes.max()) / moments.n
    return found
