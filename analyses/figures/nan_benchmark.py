"""The speed of the NaN operators as the README's tables."""

from collections.abc import Mapping, Sequence

from analyses.figures.benchmark import number

Rows = Sequence[Mapping[str, str]]


def markdown(rows: Rows) -> list[str]:
    """Return the lines of one table a part: a line for each subject and thread count, a column for each pattern."""
    lines: list[str] = []
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        patterns = list(dict.fromkeys(row["pattern"] for row in here))
        lines += [""] if lines else []
        lines += [f"| {part} | threads | torch, ms | {' | '.join(patterns)} |", "| --- " * (3 + len(patterns)) + "|"]
        for subject, threads in dict.fromkeys((row["subject"], row["threads"]) for row in here):
            found = {row["pattern"]: row for row in here if (row["subject"], row["threads"]) == (subject, threads)}
            stock = next(iter(found.values()))
            cells = [_cell(found[pattern]) if pattern in found else "" for pattern in patterns]
            milliseconds = f"{number(stock['stock_ms'])}, {stock['stock_format']}"
            lines.append(f"| {subject} | {threads} | {milliseconds} | {' | '.join(cells)} |")
    return lines


def _cell(row: Mapping[str, str]) -> str:
    spread = f"({number(row['speed_up_low'])} to {number(row['speed_up_high'])})"
    share = float(row["skipped"] or 0)
    ideal = f"; {100 * share:.0f} % skipped, ideal {number(row['ideal'])}" if share else ""
    bound = f"; bound {number(row['least'])}: {'met' if row['met'] == 'True' else 'NOT MET'}" if row["least"] else ""
    return f"**{number(row['speed_up'])}** {spread}{ideal}{bound}"
