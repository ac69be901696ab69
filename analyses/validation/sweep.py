"""How do windows that a tolerance calls ambiguous agree with those whose index changes, over all tolerances?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from analyses.experiments.counting import Row
from analyses.validation.agreement import agreement_of, counts
from analyses.validation.gaps import KINDS, Pooling
from mcaprobe.agreement import Agreement
from nanops import Tolerance

# `absolute` compares with <, the others with <=; 0 ulps are exact ties.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "absolute": tuple(10.0 ** (e / 2) for e in range(-18, 1)),
    "relative": tuple(10.0 ** (e / 2) for e in range(-18, 1)),
    "ulps": (0.0, *(float(2**e) for e in range(0, 25))),
}
MAX_TIES = (1, 2, 3)


def amounts() -> Iterator[Tolerance]:
    """Yield the tolerances of the sweep; the paper's is one of them."""
    for kind in KINDS:
        for amount in AMOUNTS[kind]:
            yield Tolerance(kind, amount)


def ambiguous(gaps: Tensor, tolerance: Tolerance) -> Tensor:
    """Return which windows are ambiguous at a tolerance, bool, of their gaps."""
    return gaps < tolerance.value if tolerance.kind == "absolute" else gaps <= tolerance.value


def rows(about: Row, pooling: Pooling, changed: Tensor) -> Iterator[Row]:
    """Yield a row for each tolerance and number of allowed ties.

    Args:
        changed: Whether the index of each window changed in a sample, bool (1, C, h, w).
    """
    for kind, most in product(KINDS, MAX_TIES):
        if most >= pooling.taps:
            continue
        gaps = pooling.gaps(kind, most)
        for amount in AMOUNTS[kind]:
            found = Agreement.of(ambiguous(gaps, Tolerance(kind, amount)), changed)
            yield about | {"layer": pooling.layer, "kind": kind, "value": amount, "max_ties": most, **counts(found)}


def areas(about: Row, pooling: Pooling, changed: Tensor) -> Iterator[Row]:
    """Yield for each kind and number of allowed ties the area under the ROC curve and the average precision."""
    truth = changed.flatten().long()
    for kind, most in product(KINDS, MAX_TIES):
        if most >= pooling.taps:
            continue
        gaps = pooling.gaps(kind, most).flatten()
        # Ranks, since torchmetrics takes scores outside of [0, 1] for logits.
        order = torch.unique(gaps, return_inverse=True)[1].double()
        score = 1 - order / max(1.0, float(order.max()))
        both = 0 < int(truth.sum()) < truth.numel()
        yield about | {
            "layer": pooling.layer, "kind": kind, "max_ties": most, "windows": truth.numel(),
            "changed": int(truth.sum()),
            "auroc": float(binary_auroc(score, truth)) if both else None,
            "average_precision": float(binary_average_precision(score, truth)) if both else None,
        }  # fmt: skip


def best(rows: Sequence[Mapping[str, object]], kind: str | None = None) -> tuple[Tolerance, int, float] | None:
    """Return the setting with the largest mean MCC over the subjects: of equal ones the smallest tolerance.

    Args:
        rows: Of one layer, of several subjects.
        kind: Of the tolerance; None: any.
    Returns:
        Tolerance, max_ties and the mean; None where no window changes in any subject, and nothing can be chosen.
    """
    scores: dict[tuple[str, float, int], list[float]] = {}
    for row in rows:
        if kind is not None and row["kind"] != kind:
            continue
        key = str(row["kind"]), float(str(row["value"])), int(str(row["max_ties"]))
        value = agreement_of(row).mcc
        # Nothing or everything is called ambiguous: no better than chance.
        scores.setdefault(key, []).append(0.0 if value is None else value)
    if not any(any(values) for values in scores.values()):
        return None
    ranked = sorted(scores.items(), key=lambda item: (-_mean(item[1]), item[0][1], item[0][2], KINDS.index(item[0][0])))
    (chosen_kind, value, most), values = ranked[0]
    return Tolerance(chosen_kind, value), most, _mean(values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
