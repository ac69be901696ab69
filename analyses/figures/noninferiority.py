"""Non-inferiority of Dice as tables: a line for each method, then a table of each method's structures."""

from collections.abc import Mapping, Sequence

from analyses.experiments.noninferiority import MEAN, METHOD, YES
from analyses.figures.brains import name_of

Rows = Sequence[Mapping[str, str]]
HEAD = "n | NaN left out | Dice, torch | Dice, method | difference (95 % interval) | p | p, Holm | verdict |"
RULE = " --- |" * 8


def markdown(rows: Rows) -> list[str]:
    """Return the lines of a page, from the rows as the CSV has them."""
    methods = list(dict.fromkeys(tuple(row[column] for column in METHOD) for row in rows))
    parts = [[row for row in rows if tuple(row[c] for c in METHOD) == method] for method in methods]
    lines = [f"| method, {MEAN} | {HEAD} structures non-inferior |", f"| --- |{RULE} --- |"]
    for part in parts:
        structures = [row for row in part if row["structure"] != MEAN]
        shown = sum(row["verdict"] == YES for row in structures)
        (mean,) = (row for row in part if row["structure"] == MEAN)
        lines.append(f"| {name_of(mean)} {_cells(mean)} {shown} of {len(structures)} |")
    for part in parts:
        lines += ["", f"## {name_of(part[0])}", "", f"| structure | {HEAD}", f"| --- |{RULE}"]
        lines += [f"| {row['structure']} {_cells(row)}" for row in part]
    return lines


def _cells(row: Mapping[str, str]) -> str:
    if not row["p"]:
        return f"| {row['n']} | {row['nan_left_out']} | | | | | | {row['verdict']} |"
    torch, dice = (f"{float(row[column]):.4f}" for column in ("torch", "dice"))
    difference, low, high = (f"{float(row[column]):+.4f}" for column in ("difference", "low", "high"))
    p, corrected = (f"{float(row[column]):.2g}" for column in ("p", "p_holm"))
    numbers = f"{torch} | {dice} | {difference} ({low} to {high}) | {p} | {corrected}"
    return f"| {row['n']} | {row['nan_left_out']} | {numbers} | {row['verdict']} |"
