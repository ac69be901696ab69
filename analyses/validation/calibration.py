"""Which tolerance does each pooling get, and does one that was chosen on some subjects serve another?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analyses.experiments.counting import Row
from analyses.validation.agreement import agreement_of
from analyses.validation.sweep import best
from nanops import PAPER, Tolerance

Rows = Sequence[Mapping[str, Any]]


def chosen(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return options for `nanops.convert(overrides=...)`: for each pooling the setting of the largest mean MCC.

    A pooling of which no window changes in any subject keeps the options of the call.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in dict.fromkeys(row["layer"] for row in rows):
        setting = best([row for row in rows if row["layer"] == layer])
        if setting is not None:
            tolerance, most, _ = setting
            found[layer] = {"tolerance": tolerance, "max_ties": most}
    return found


def held_out(rows: Rows) -> Iterator[Row]:
    """Yield for each pooling and subject how the setting of the other subjects does on it, beside paper's and its own.

    Nothing is yielded for a single subject.
    """
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    if len(subjects) < 2:
        return
    for layer in dict.fromkeys(row["layer"] for row in rows):
        part = [row for row in rows if row["layer"] == layer]
        for subject in subjects:
            own = [row for row in part if row["subject"] == subject]
            others = best([row for row in part if row["subject"] != subject])
            settings = {
                "paper": (PAPER, 1),
                "held out": None if others is None else others[:2],
                "best": None if (mine := best(own)) is None else mine[:2],
            }
            for name, setting in settings.items():
                if setting is not None:
                    yield {"layer": layer, "subject": subject, "setting": name} | _judged(own, *setting)


def _judged(rows: Rows, tolerance: Tolerance, max_ties: int) -> Row:
    """Return the scores of a setting on a subject; the sweep holds the paper's and every other setting."""
    row = next(
        row for row in rows
        if row["kind"] == tolerance.kind and int(row["max_ties"]) == max_ties
        and abs(float(row["value"]) - tolerance.value) <= 1e-9 * tolerance.value
    )  # fmt: skip
    found = agreement_of(row)
    return {
        "kind": tolerance.kind, "value": tolerance.value, "max_ties": max_ties,
        "mcc": found.mcc, "dice": found.dice, "precision": found.precision, "recall": found.recall,
    }  # fmt: skip
