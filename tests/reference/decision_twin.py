"""Decisions one at a time, in Python's own numbers: who wins, and how often is it another one?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def winner(values: Sequence[float]) -> int:
    """Place of the first NaN, else of the first of the largest values."""
    for place, value in enumerate(values):
        if math.isnan(value):
            return place
    best = 0
    for place, value in enumerate(values):
        if value > values[best]:
            best = place
    return best


def labels(output: Tensor) -> Tensor:
    """Labels (N, ...) of an output (N, C, ...), position by position."""
    rows = output.movedim(1, -1)
    flat = [winner(row.tolist()) for row in rows.reshape(-1, rows.shape[-1])]
    return torch.tensor(flat, dtype=torch.int64).reshape(rows.shape[:-1])


def flip_counts(reference: Tensor, samples: Sequence[Tensor]) -> Tensor:
    """How many samples differ from the reference, int64, place by place."""
    counts = [0] * reference.numel()
    for sample in samples:
        for place, (mine, theirs) in enumerate(
            zip(sample.reshape(-1).tolist(), reference.reshape(-1).tolist(), strict=True)
        ):
            counts[place] += mine != theirs
    return torch.tensor(counts, dtype=torch.int64).reshape(reference.shape)


def shares(counts: Tensor, n: int, where: Tensor) -> tuple[int, float | None, float | None, float | None]:
    """Decisions in the region, their mean flip rate, the share that flipped once, the largest rate.

    `where` (bool) is of the last dimensions of `counts`.
    """
    chosen = [
        count
        for row in counts.reshape(-1, where.numel()).tolist()
        for count, inside in zip(row, where.reshape(-1).tolist(), strict=True)
        if inside
    ]
    if not chosen:
        return 0, None, None, None
    flipped = sum(count > 0 for count in chosen)
    return len(chosen), sum(chosen) / n / len(chosen), flipped / len(chosen), max(chosen) / n
