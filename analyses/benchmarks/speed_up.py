"""How many times as fast as torch's own is ours, both timed by turns in the same run?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from analyses.benchmarks.timing import Call, Times, calls_within, interleave, spread

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """How often, on how many threads, how long at a time.

    Args:
        seconds: How long a call is repeated at a time, so that short ones can be timed.
    """

    repetitions: int = 9
    threads: tuple[int, ...] = (1, 2)
    seconds: float = 0.03
    seed: int = 0


def by_turns(
    stock: Mapping[str, Call], ours: Mapping[str, Call], setting: Setting, progress: Callable[[str], None]
) -> tuple[dict[str, Times], dict[str, Times]]:
    """Return the times of one call of each of stock's and of ours; stock is timed before, between and after ours."""
    calls = {**stock, **ours}
    counts = {name: calls_within(call, setting.seconds) for name, call in calls.items()}
    blocks = {name: partial(_repeat, calls[name], counts[name]) for name in calls}
    found = interleave(
        {name: blocks[name] for name in stock}, [{name: blocks[name]} for name in ours], setting.repetitions, progress
    )
    each = {name: times.over(counts[name]) for name, times in found.items()}
    return {name: each[name] for name in stock}, {name: each[name] for name in ours}


def _repeat(call: Call, count: int) -> None:
    for _ in range(count):
        call()


def compared(ours: Times, stock: Mapping[str, Times], least: float | None = None) -> Row:
    """Return the cells of a row that hold ours against stock in the faster one of its memory formats.

    Args:
        stock: Its times by memory format.
        least: Smallest accepted speed-up, None where it is only shown.
    """
    fastest = min(stock, key=lambda name: stock[name].median)
    theirs = stock[fastest]
    speed_up = theirs.ratio(ours)
    low, high = spread([speed_up, *theirs.ratios(ours)])
    return judged(speed_up, least) | {
        "repetitions": len(ours.turns), "stock_format": fastest, "stock_ms": 1e3 * theirs.median,
        "stock_low_ms": 1e3 * min(theirs.all), "stock_high_ms": 1e3 * max(theirs.all), "ms": 1e3 * ours.median,
        "low_ms": 1e3 * min(ours.all), "high_ms": 1e3 * max(ours.all), "speed_up_low": low, "speed_up_high": high,
        "speed_up_fastest": min(theirs.all) / min(ours.all),
    }  # fmt: skip


def judged(speed_up: float, least: float | None) -> Row:
    """Return a speed-up with its bound and whether it is met, None where it has none."""
    return {"speed_up": speed_up, "least": least, "met": None if least is None else bool(speed_up >= least)}
