"""The cost rows as the README's tables: campaigns, operators, memory and the whole slice, and what others measured."""

from collections.abc import Callable, Mapping, Sequence

from analyses.benchmarks.rows import (
    CAMPAIGN,
    ELSEWHERE,
    FULL_WIDTH,
    MEMORY,
    ONE_LAYER,
    OPERATORS,
    PASS,
    PERTURBED,
    STOCK,
    VARIANTS,
    WHOLE,
)

Row = Mapping[str, str]
Rows = Sequence[Row]


def markdown(rows: Rows) -> list[str]:
    """Return the lines of the tables from the rows as the CSV has them; a part without rows has no table."""
    tables: tuple[tuple[str, Callable[[Rows], list[str]]], ...] = (
        (CAMPAIGN, _campaigns), (OPERATORS, _operators), (MEMORY, _memory), (FULL_WIDTH, _full_width),
        (ELSEWHERE, _elsewhere),
    )  # fmt: skip
    lines: list[str] = []
    for part, draw in tables:
        here = [row for row in rows if row["part"] == part]
        if here:
            lines += ["", *draw(here)] if lines else draw(here)
    return lines


def number(value: str | float) -> str:
    """Return a figure with three significant digits."""
    x = float(value)
    return f"{x:.0f}" if x >= 99.5 else f"{x:.1f}" if x >= 9.95 else f"{x:.2f}"


def with_range(row: Row, name: str) -> str:
    """Return a figure of a row, bold, and its extremes."""
    return f"**{number(row[name])}** ({number(row[f'{name}_low'])} to {number(row[f'{name}_high'])})"


def table(*lines: Sequence[str]) -> list[str]:
    """Return the lines of a Markdown table, of which the first one is the head."""
    cells = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return [f"| {' | '.join(line)} |" for line in cells]


def _seconds(row: Row) -> str:
    return f"{number(row['median'])} s ({number(row['low'])} to {number(row['high'])})"


def _ratio(row: Row) -> str:
    bound = f", bound {row['bound']}: {'met' if row['met'] == 'True' else 'NOT MET'}" if row["bound"] else ""
    return with_range(row, "ratio") + bound


def _pick(rows: Rows, **cells: str) -> Row:
    return next(row for row in rows if all(row[name] == value for name, value in cells.items()))


def _campaigns(rows: Rows) -> list[str]:
    header = ("threads", "route, mode", "campaign", "over stock", "over stock, contiguous", "one layer recorded",
              "over stock", "whole run", "over stock")  # fmt: skip
    lines: list[Sequence[str]] = [header]
    for threads in dict.fromkeys(row["threads"] for row in rows):
        for name in ("channels_last", "contiguous"):
            stock = _pick(rows, threads=threads, what=STOCK, format=name)
            lines.append((threads, f"stock, {name}, {stock['samples']} forwards", _seconds(stock), *[""] * 6))
        for route, mode in VARIANTS:
            unit, one, whole = (
                _pick(rows, threads=threads, route=route, mode=mode, what=what) for what in (PASS, ONE_LAYER, WHOLE)
            )
            lines.append(
                (threads, f"{route}, {mode}", _seconds(unit), _ratio(unit), number(unit["ratio_contiguous"]),
                 f"{number(one['median'])} s", number(one["ratio"]), f"{number(whole['median'])} s",
                 number(whole["ratio"]))
            )  # fmt: skip
    return table(*lines)


def _operators(rows: Rows) -> list[str]:
    lines: list[Sequence[str]] = [("one call, one thread", "stock", *(f"{r}, {m}" for r, m in VARIANTS))]
    for subject in dict.fromkeys(row["subject"] for row in rows):
        here = [row for row in rows if row["subject"] == subject]
        perturbed = [_pick(here, what=PERTURBED, route=route, mode=mode) for route, mode in VARIANTS]
        stock = _pick(here, what=STOCK, format=perturbed[0]["baseline"])
        milliseconds = f"{number(1000 * float(stock['median']))} ms, {stock['format']}"
        lines.append((subject, milliseconds, *(_ratio(row) + _contiguous(row) for row in perturbed)))
    return table(*lines)


def _contiguous(row: Row) -> str:
    return f", contiguous {number(row['ratio_contiguous'])}" if row["baseline"] != "contiguous" else ""


def _memory(rows: Rows) -> list[str]:
    lines: list[Sequence[str]] = [("peak memory of the process", "threads", "MiB", "over stock")]
    for row in rows:
        name = f"{row['samples']} samples, route {row['route']}" if row["route"] else "stock forward"
        ratio = number(row["ratio"]) if row["ratio"] else ""
        lines.append((name, row["threads"], f"{float(row['median']):.0f}", ratio))
    return table(*lines)


def _full_width(rows: Rows) -> list[str]:
    campaign = _pick(rows, what=WHOLE, unit="s")
    title = f"{campaign['subject']}, {campaign['samples']} samples, {campaign['threads']} threads"
    lines: list[Sequence[str]] = [(title, "wall clock", "over stock", "peak memory, MiB", "layers")]
    for what, name in ((STOCK, "stock forwards"), (WHOLE, f"{campaign['route']}, {campaign['mode']}, whole run")):
        time, memory = (_pick(rows, what=what, unit=unit) for unit in ("s", "MiB"))
        ratio = number(time["ratio"]) if time["ratio"] else ""
        lines.append((name, f"{number(time['median'])} s", ratio, f"{float(memory['median']):.0f}", time["layers"]))
    return table(*lines)


def _elsewhere(rows: Rows) -> list[str]:
    lines: list[Sequence[str]] = [("not measured here", "on", "mode", "over the unperturbed run", "source")]
    for row in rows:
        low, high = float(row["ratio_low"]), float(row["ratio_high"])
        value = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        lines.append((row["what"], row["subject"], row["mode"], value, row["source"]))
    return table(*lines)
