"""Is skipping better than pruning, do savings multiply, what costs digits? Answered from the rows of a comparison."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from analyses.experiments.comparison.combined import SPEEDS, combined, stock_of, work
from analyses.experiments.comparison.measures import means
from analyses.experiments.comparison.networks import CONSERVATIVE, STOCK, UNIFORM
from mcaprobe.intervals import student_interval

Row = Mapping[str, str]
Answer = dict[str, float | str]
PRUNED = ("magnitude pruning", "magnitude pruning, fine-tuned")
SKIPPING = (CONSERVATIVE, UNIFORM)
BITS = {"bits": "bits of the logits", "bits_where_image": "bits of the logits where the image is not 0"}


def answers(rows: Sequence[Row], times: Sequence[Row], dice: Sequence[Row], bits: Sequence[Row]) -> list[Answer]:
    """Return the rows that answer the three questions.

    Returns:
        question, network, against, threads, quantity, value, low, high, n. Dice and bits: means of differences, paired
        by subject or probed input, with Student's 95 % interval. Speed-ups: with the lowest and highest of the
        repetitions; of a product these are the products of the lowest and of the highest.
    Raises:
        InputError: stock's row is missing.
    """
    return [*_skipping(rows, times, dice), *_savings(rows, times), *_digits(rows, bits)]


def _skipping(rows: Sequence[Row], times: Sequence[Row], dice: Sequence[Row]) -> Iterator[Answer]:
    """Is skipping by NaN better or worse than pruning as much?"""
    stock = stock_of(rows)
    by_name, scores = {row["network"]: row for row in rows}, subject_means(dice)
    for name in SKIPPING:
        for other in PRUNED:
            if not {name, other} <= scores.keys():
                continue
            yield _answer("skipping against pruning", name, other, "Dice") | paired(scores[name], scores[other])
    for name in (*SKIPPING, *PRUNED):
        if name not in by_name:
            continue
        share = _answer("skipping against pruning", name, STOCK, "share of the products that are made")
        yield share | {"value": work(by_name[name], stock)}
        for row in times:
            if row["network"] == name:
                yield _answer("skipping against pruning", name, STOCK, "speed-up", row["threads"]) | _speed(row)


def _savings(rows: Sequence[Row], times: Sequence[Row]) -> Iterator[Answer]:
    """Do the savings multiply?"""
    for found in combined(rows, times):
        about = partial(_answer, "do savings multiply", str(found["network"]), STOCK, threads=str(found["threads"]))
        for name, words in (("product", "speed-ups alone, multiplied"), ("together", "speed-up together")):
            ends = {end: found[f"{name}_{end}"] for end in ("low", "high")}
            yield about(quantity=words) | {"value": found[name]} | ends
        for one, other, words in (("together", "product", "speed-up"), ("work", "work_product", "work")):
            ratio = float(found[one]) / float(found[other])
            yield about(quantity=f"{words} together over multiplied") | {"value": ratio}


def _digits(rows: Sequence[Row], bits: Sequence[Row]) -> Iterator[Answer]:
    """Does it cost significant digits?"""
    for column, words in BITS.items():
        found = _by_input(bits, column)
        for row in rows:
            name = row["network"]
            if name != STOCK and name in found and STOCK in found:
                yield _answer("what costs digits", name, STOCK, words) | paired(found[name], found[STOCK])


def subject_means(dice: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return by network and subject the mean Dice of the foreground classes that have one."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in dice:
        own = scores.setdefault(row["network"], {}).setdefault(row["subject"], [])
        own.append(float(row["dice"] or "nan"))
    return {name: dict(zip(each, means(list(each.values())), strict=True)) for name, each in scores.items()}


def _by_input(bits: Sequence[Row], column: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in bits:
        found.setdefault(row["network"], {})[row["input"]] = float(row[column])
    return found


def paired(mine: Mapping[str, float], theirs: Mapping[str, float]) -> Answer:
    """Return the mean of the differences between what both have, Student's 95 % interval of it, and their number."""
    differences = [value - theirs[key] for key, value in mine.items() if key in theirs]
    low, high = student_interval(differences)
    return {"value": math.fsum(differences) / len(differences), "low": low, "high": high, "n": str(len(differences))}


def _answer(question: str, network: str, against: str, quantity: str, threads: str = "") -> Answer:
    return {"question": question, "network": network, "against": against, "threads": threads, "quantity": quantity}


def _speed(row: Row) -> Answer:
    return dict(zip(("value", "low", "high"), (float(row[name]) for name in SPEEDS), strict=True))
