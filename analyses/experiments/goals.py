"""Are the goals on the wall clock met? The speed-ups of all subjects, beside the ceiling of the work spared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analyses.experiments.counting import BRAIN, WHOLE, Row, Tables
from analyses.experiments.spared_work import ITSELF
from analyses.experiments.wall_clock import EVERY_SLICE
from analyses.experiments.ways import EVERYTHING
from analyses.methods import STOCK

Rows = Sequence[Mapping[str, Any]]
# Least speed-up on slices with brain and on whole volumes, of a network that sees all of the volume.
LEAST = {
    "conservative": (1.6, 1.9),
    "hybrid": (1.9, 2.3),
    "hybrid, uniform windows": (1.9, 2.3),
    "uniform windows": (2.2, 3.0),
    "conservative, uniform windows": (2.2, 3.0),
}
DICE_APART = 0.005  # of hybrid NaNs, at most; all others change no label
KEYS = ("network", "threads", "volume", "method", "scope")


def summary(tables: Tables) -> Tables:
    """Return one row for each network, thread count, way and scope, judged where there is a goal."""
    times, work = tables.get("times", []), tables.get("work", [])
    keys = dict.fromkeys(tuple(row[name] for name in KEYS) for row in times)
    return {"summary": [judged(_row(dict(zip(KEYS, key, strict=True)), times, work)) for key in keys]}


def missed(rows: Rows) -> Rows:
    """Return the rows whose goal is missed: too slow, or other labels than allowed."""
    return [row for row in rows if row["met"] is False]


def judged(row: Row) -> Row:
    """Return a row with its goal, None where it has none, and whether speed and labels meet it."""
    if row["method"] not in LEAST or row["volume"] != EVERYTHING:
        return row | {"goal": None, "labels_kept": None, "met": None}
    goal = LEAST[row["method"]][row["scope"] != BRAIN]
    return row | {"goal": goal, "labels_kept": kept(row), "met": bool(row["speed_up"] >= goal and kept(row))}


def kept(row: Row) -> bool:
    """Return whether Dice of hybrid NaNs, or the labels of anything else, are torch's: as far as torch's own are, with
    another number of slices at once or another layout."""
    if row["method"].startswith("hybrid"):
        return bool(abs(row["dice"] - row["dice_stock"]) <= DICE_APART)
    return bool(row["labels_changed"] <= row["stock_changed"])


def _row(about: Row, times: Rows, work: Rows) -> Row:
    """Return a row with totals over the subjects; low and high are the extremes of the subjects."""
    ours = _chosen(times, about)
    stock = {row["subject"]: row for row in _chosen(times, about | {"method": STOCK, "volume": EVERYTHING})}
    ratios = [stock[row["subject"]]["seconds"] / row["seconds"] for row in ours]
    seconds, theirs = sum(row["seconds"] for row in ours), sum(stock[row["subject"]]["seconds"] for row in ours)
    return about | {
        "subjects": len(ours), "slices_timed": sum(row["slices_timed"] for row in ours), "seconds": seconds,
        "stock_seconds": theirs, "speed_up": theirs / seconds, "low": min(ratios), "high": max(ratios),
    } | _worked(about, ours, work)  # fmt: skip


def _worked(about: Row, ours: Rows, work: Rows) -> Row:
    """Return executed share, ceiling, labels and Dice; where every slice was timed, its own labels."""
    every = about["scope"] == EVERY_SLICE
    subjects = {row["subject"] for row in ours}
    where = about | {"scope": WHOLE if every else about["scope"]}
    where.pop("threads")

    def of(method: str, volume: str = EVERYTHING) -> Rows:
        found = _chosen(work, where | {"method": method, "volume": volume})
        return [row for row in found if row["subject"] in subjects]

    here = of(about["method"], about["volume"])
    share = _mean(row["executed_share"] for row in here)
    counted = ours if every else here
    return {
        "executed_share": share, "ceiling": 1 / share, "labels": sum(row["labels"] for row in counted),
        "labels_changed": sum(row["labels_changed"] for row in counted),
        "stock_changed": sum(row["stock_changed"] for row in ours) if every
        else max(sum(row["labels_changed"] for row in of(name)) for name in ITSELF),
        "dice": _mean(row["dice"] for row in here), "dice_stock": _mean(row["dice"] for row in of(STOCK)),
    }  # fmt: skip


def _chosen(rows: Rows, about: Row) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == about[name] for name in KEYS if name in about and name in row)]


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
