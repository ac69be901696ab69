"""What converted networks skip, as the README's table."""

from collections.abc import Mapping, Sequence

from analyses.experiments.skipping import TOTAL
from analyses.figures.benchmark import number, table, with_range

Rows = Sequence[Mapping[str, str]]
HEAD = ("network, input", "NaN", "threads", "skipped, mean of layers", "skipped, MACs", "executed, MACs",
        "labels that differ", "torch, ms", "speed-up")  # fmt: skip


def short(rows: Rows) -> list[str]:
    """Return the table's lines of one thread, threshold 1/2 and images that are networks' own or the paper's."""
    return markdown(
        [row for row in rows if row["threads"] == "1" and float(row["threshold"]) == 0.5
         and not row["input"].startswith("labelled")]
    )  # fmt: skip


def markdown(rows: Rows) -> list[str]:
    """Return the lines of a table with one line for each network, method and thread count."""
    lines: list[Sequence[str]] = [HEAD]
    for row in rows:
        if row["layer"] != TOTAL:
            continue
        method = f"{row['pooling']}, {float(row['threshold']):g}" if row["pooling"] else "none"
        method += ", uniform" if row["uniform"] == "True" else ""
        lines.append((
            f"{row['network']}, {row['input']}", method, row["threads"], _percent(row["mean_over_layers"]),
            _percent(row["mac_share"]), _percent(row["executed_share"]), f"{row['labels_changed']} of {row['labels']}",
            number(row["stock_ms"]), with_range(row, "speed_up"),
        ))  # fmt: skip
    return table(*lines)


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %"
