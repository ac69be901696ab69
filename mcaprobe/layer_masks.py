"""What does a criterion mark in one layer of a run, channel by channel and over the channels?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import Class, Estimator
from mcaprobe.index_moments import IndexMoments
from mcaprobe.layer_result import LayerResult
from mcaprobe.mask_facts import facts_of_layer, facts_of_run
from mcaprobe.masks import Criterion, Elementwise, IndexChange, Unstable, judged
from mcaprobe.result import Result, load
from mcaprobe.storage import DamagedFile

NONE, SHARE = "none", "share"
REDUCTIONS = {
    "any": "at least one channel is marked",
    "all": "every channel is marked",
    SHARE: "marked channels over all channels",
    NONE: "one volume for each channel",
}


@dataclass(frozen=True, eq=False)
class Mask:
    """What a criterion marks in one layer.

    Attributes:
        layer: Name of the layer.
        values: Bool, the layer's shape: the marked elements.
        undefined: Bool, the layer's shape: elements of which the criterion says nothing; none of them is marked.
        about: Criterion, estimator, n, run, counts: what the JSON file beside a mask holds.
    """

    layer: str
    values: Tensor
    undefined: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Mask({self.layer!r}, shape {self.shape}, {self.masked} of {self.values.numel()} elements)"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def channels(self, values: Tensor) -> Tensor:
        """Return `values` of the layer's shape as (C, *spatial); labels have no channels and count as one."""
        axes = self.about.get("ImageAxes")
        leading = 2 if axes is None else len(self.shape) - axes
        whole = leading in (1, 2) and len(self.shape) >= leading and 0 not in self.shape[1:leading]
        if not whole or self.shape[0] != 1:
            raise InputError(f"Expected a layer of shape (1, C, *spatial) with C >= 1, got {self.shape}.")
        return values[0] if leading == 2 else values

    @property
    def masked(self) -> int:
        """Number of marked elements."""
        return int(self.values.sum())

    def reduced(self, how: str) -> Tensor:
        """Return the mask over the channels, of a layer (1, C, *spatial) with C >= 1, or of labels (1, *spatial).

        An undefined element is not marked: it can make `all` False and `share` smaller, never `any` True.

        Args:
            how: `any` or `all`: bool (*spatial); `share`: float32 (*spatial), marked channels over all channels;
                `none`: bool (C, *spatial).
        """
        if how not in REDUCTIONS:
            raise InputError(f"Expected a reduction among {', '.join(REDUCTIONS)}, got {how!r}.")
        channels = self.channels(self.values)
        if how == SHARE:
            return (channels.sum(0).double() / len(channels)).float()
        return channels if how == NONE else channels.any(0) if how == "any" else channels.all(0)


def unstable(
    run: Result | str | Path,
    layer: str,
    criterion: Criterion | None = None,
    estimator: Estimator | None = None,
) -> Mask:
    """Return which elements of a layer are unstable, from the moments that the run kept of it.

    Args:
        run: A result, or a run directory.
        layer: Its name or an alias.
        criterion: One of `masks`: Unstable (bits), OfClass, SnrBelow, IndexChange; None: fewer than 1 bit.
        estimator: Of bits and classes; None: the run's.
    Raises:
        InputError: no such layer, no moments kept, decisions where bits are asked for or the reverse, a damaged run.
    """
    run = run if isinstance(run, Result) else load(run)
    try:
        return mask_of(run, run[layer], criterion or Unstable(), estimator or run.estimator)
    except DamagedFile as error:
        raise InputError(f"The run in {run.path} is damaged: {error}.") from error


def mask_of(run: Result, layer: LayerResult, criterion: Criterion, estimator: Estimator) -> Mask:
    """Return the mask of one layer, with all that its JSON file says."""
    moments = layer.moments
    if isinstance(moments, IndexMoments) != criterion.on_indices:
        raise InputError(refusal(layer.name, criterion))
    if isinstance(moments, IndexMoments):
        values = cast(IndexChange, criterion).mask(moments)
        undefined, kinds = torch.zeros_like(values), None
    else:
        values, undefined, codes = judged(cast(Elementwise, criterion), moments, estimator)
        kinds = torch.bincount(codes.view(-1).int(), minlength=len(Class)).tolist()
    counts = {"elements": values.numel(), "masked": int(values.sum()), "undefined": int(undefined.sum())}
    about = {**facts_of_run(run, criterion, estimator), **facts_of_layer(run, layer, counts, kinds)}
    return Mask(layer.name, values, undefined, about)


def refusal(name: str, criterion: Criterion) -> str:
    """Return the sentence for a layer of which the criterion can say nothing."""
    if criterion.on_indices:
        marked = "indices of poolings ('*.indices'), labels (':output*.labels')"
        return f"{name} holds no decisions: --{criterion.option} marks {marked} and other decisions."
    return f"{name} holds decisions: they have a change rate, no significant bits; use --index-change-rate."
