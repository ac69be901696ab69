"""What is a row of the cost table, which bound is it judged by, and which rows of an earlier run stay?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyses.benchmarks.published import PUBLISHED
from analyses.benchmarks.timing import UNSTEADY, Times, spread

Row = dict[str, Any]
CAMPAIGN, OPERATORS, MEMORY, FULL_WIDTH, ELSEWHERE = "campaign", "operators", "memory", "full-width", "elsewhere"
PARTS = (CAMPAIGN, OPERATORS, MEMORY, FULL_WIDTH)
STOCK, PASS, ONE_LAYER, WHOLE, PERTURBED = "stock", "campaign", "campaign, one layer", "whole run", "perturbed"
FORMATS = ("channels_last", "contiguous")
VARIANTS = (("exact", "random"), ("exact", "nearness"), ("model", "random"), ("model", "nearness"))
# median, low, high: in `unit`; ratio: of the medians, to the stock rows of the format `baseline`, same subject and
# threads; ratio_low, ratio_high: the extremes of it and of those of the repetitions; ratio_contiguous: to the stock
# rows in the contiguous format; ratio_fastest: of the two fastest times.
COLUMNS = (
    "part", "subject", "what", "route", "mode", "format", "threads", "samples", "layers", "repetitions", "unit",
    "median", "low", "high", "baseline", "ratio", "ratio_low", "ratio_high", "ratio_fastest", "ratio_contiguous",
    "bound", "aim", "met", "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest ratio that is accepted, and the one that is aimed at."""

    most: float
    aim: float | None = None


CAMPAIGN_BOUNDS = {
    ("exact", "random"): Bound(5, 3.5),
    ("exact", "nearness"): Bound(12),
    ("model", "random"): Bound(5),
}
CONVOLUTION_BOUND = Bound(3.5)  # route exact, mode random


def bound_of(row: Mapping[str, Any]) -> Bound | None:
    """Return the bound that a row is judged by, None where it is only shown."""
    variant = (row.get("route"), row.get("mode"))
    if row["part"] == CAMPAIGN and row["what"] == PASS:
        return CAMPAIGN_BOUNDS.get(variant)  # type: ignore[arg-type]
    if row["part"] == OPERATORS and row["subject"].startswith("convolution") and variant == ("exact", "random"):
        return CONVOLUTION_BOUND
    return None


def judged(row: Mapping[str, Any]) -> Row:
    """Return the row with its bound, its aim and whether the bound is met, where it has one."""
    bound = bound_of(row)
    if bound is None:
        return dict(row)
    return {**row, "bound": bound.most, "aim": bound.aim, "met": bool(row["ratio"] <= bound.most)}


def timed(row: Row, times: Times) -> Row:
    """Return a row with its times."""
    low, high = spread(times.all)
    return {**row, "repetitions": len(times.turns), "unit": "s", "median": times.median, "low": low, "high": high}


def ratios(times: Times, stock: Mapping[str, Times], baseline: str) -> Row:
    """Return the columns that hold a call's times against stock's in the format `baseline`."""
    ratio = times.ratio(stock[baseline])
    low, high = spread([ratio, *times.ratios(stock[baseline])])
    return {"baseline": baseline, "ratio": ratio, "ratio_low": low, "ratio_high": high,
            "ratio_fastest": min(times.all) / min(stock[baseline].all),
            "ratio_contiguous": times.ratio(stock["contiguous"])}  # fmt: skip


def unsteady(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the stock rows of the campaign that were timed while the machine did something else: ratios flatter."""
    return [r for r in rows if r["part"] == CAMPAIGN and r["what"] == STOCK and r["high"] > UNSTEADY * r["low"]]


def elsewhere() -> list[Row]:
    """Return the rows of what others measured."""
    return [
        {"part": ELSEWHERE, "subject": p.subject, "what": p.tool, "mode": p.mode, "source": p.source,
         "ratio": p.low if p.low == p.high else None, "ratio_low": p.low, "ratio_high": p.high}
        for p in PUBLISHED
    ]  # fmt: skip


def key(row: Mapping[str, Any]) -> str:
    """Return what is measured together, so that its ratios belong together: a part at a number of threads."""
    return f"{row['part']}, {row['threads']} threads" if row.get("threads") else str(row["part"])


def merged(kept: Iterable[Mapping[str, str]], fresh: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the fresh rows and those kept rows whose key was not measured anew, in the order of the parts."""
    anew = {key(row) for row in fresh}
    rows = [dict(row) for row in kept if key(row) not in anew and row["part"] != ELSEWHERE] + [dict(r) for r in fresh]
    order = (*PARTS, ELSEWHERE)
    return sorted(rows, key=lambda row: (order.index(row["part"]), int(row["threads"] or 0)))
