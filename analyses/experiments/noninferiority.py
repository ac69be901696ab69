"""Is the Dice of a converted network no worse than that of torch's own, structure by structure?

Paired over subjects, with the margin that was fixed before. A pair in which either score is NaN (neither the labels nor
the network have the structure) is left out and counted. The structures of one method are one family (Holm); the mean
over the structures is a row and a question of its own. Background is no structure.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from analyses.experiments.counting import Row
from analyses.methods import STOCK
from analyses.statistics import holm, non_inferiority
from analyses.structures import CLASSES
from mcaprobe.errors import InputError

MARGIN, ALPHA = 0.005, 0.05
MEAN = "mean over structures"
METHOD = ("method", "pooling", "threshold", "uniform", "fill")
YES, NO, UNDECIDED, UNTESTED = "non-inferior", "inferior", "undecided", "not tested"
NOTHING = "torch finds none"  # Dice 0 in every subject: no method could be worse, and the test says nothing
Scores = dict[tuple[str, str], float]  # of (structure, subject)


def run(dice: Sequence[Mapping[str, str]], margin: float = MARGIN, seed: int = 0) -> list[Row]:
    """Return the rows of all methods: one for each structure, and one for their mean.

    Args:
        dice: Rows of a table `segmentation_dice`.
        seed: Of the bootstrap.
    Raises:
        InputError: no scores of torch's own network, two of one subject and structure, or other subjects.
    """
    by_method: dict[tuple[str, ...], Scores] = {}
    for row in dice:
        if row["structure"] == CLASSES[0]:
            continue
        scores = by_method.setdefault(tuple(row.get(column, "") for column in METHOD), {})
        key = row["structure"], row["subject"]
        if key in scores:
            raise InputError(f"Expected one Dice of {key[0]}, subject {key[1]}, by {row['method']}, got two.")
        scores[key] = float(row["dice"] or "nan")
    stock = next((scores for method, scores in by_method.items() if method[0] == STOCK), None)
    if stock is None:
        raise InputError(f"Expected rows of the method {STOCK}, got none.")
    found: list[Row] = []
    for method, scores in by_method.items():
        if scores is stock:
            continue
        if scores.keys() != stock.keys():
            raise InputError(f"Expected the subjects and structures of {STOCK}, got others by {method[0]} {method[2]}.")
        about = dict(zip(METHOD, method, strict=True))
        found += [about | row for row in compare(scores, stock, margin, seed)]
    return found


def compare(method: Scores, stock: Scores, margin: float, seed: int) -> list[Row]:
    """Return the rows of one method: its structures, then their mean."""
    structures = list(dict.fromkeys(structure for structure, _ in stock))
    subjects = list(dict.fromkeys(subject for _, subject in stock))
    paired = {key for key in stock if not math.isnan(stock[key]) and not math.isnan(method[key])}
    rows = []
    for structure in structures:
        whom = [(structure, subject) for subject in subjects if (structure, subject) in paired]
        left_out = len(subjects) - len(whom)
        rows.append(_row(structure, left_out, [method[k] for k in whom], [stock[k] for k in whom], margin, seed))
    _decide(rows, margin)
    # Both means of a subject are over the structures of which both scores are numbers.
    means = [
        [fmean(scores[s, subject] for s in structures if (s, subject) in paired) for scores in (method, stock)]
        for subject in subjects if any((s, subject) in paired for s in structures)
    ]  # fmt: skip
    last = _row(MEAN, len(stock) - len(paired), [m for m, _ in means], [s for _, s in means], margin, seed)
    _decide([last], margin)
    return [*rows, last]


def verdict(row: Row, margin: float) -> str:
    """Return what a corrected p and the upper end of the interval say; failing to show one thing shows no other."""
    if row["p"] is None:
        return UNTESTED
    if row["torch"] == 0:
        return NOTHING
    if row["p_holm"] < ALPHA:
        return YES
    return NO if row["high"] < -margin else UNDECIDED


def _row(
    structure: str, left_out: int, method: Sequence[float], stock: Sequence[float], margin: float, seed: int
) -> Row:
    row: Row = {"structure": structure, "n": len(method), "nan_left_out": left_out}
    if len(method) < 2:
        return row | dict.fromkeys(("torch", "dice", "difference", "low", "high", "p"))
    result = non_inferiority(method, stock, margin, seed)
    scores: dict[str, Any] = {"torch": fmean(stock), "dice": fmean(method), "difference": result.difference}
    return row | scores | {"low": result.low, "high": result.high, "p": result.p}


def _decide(family: Sequence[Row], margin: float) -> None:
    """Add the corrected p and the verdict to rows that are one family of tests."""
    tested = [row for row in family if row["p"] is not None]
    corrected = iter(holm([row["p"] for row in tested]))
    for row in family:
        row["p_holm"] = None if row["p"] is None else next(corrected)
        row["verdict"] = verdict(row, margin)
