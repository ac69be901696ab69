"""Write rows as tidy CSV beside a JSON manifest, each under a temporary name and renamed into place."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mcaprobe.storage import read_csv


def write_text(path: Path, text: str) -> None:
    """Write a text file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def suffix_of(plane: str) -> str:
    """Return what is added to the names of results of a plane; nothing for the first one, axial."""
    return "" if plane == "axial" else f"_{plane}"


def page(title: str, rows: str, lines: Sequence[str]) -> str:
    """Return a page of tables, drawn from the rows of the CSV beside it."""
    source = f"Drawn from [{rows}]({rows}); its .json says what, when, where and how."
    return "\n".join([f"# {title}", "", source, "", *lines, ""])


def table(head: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, of its head and the cells of its rows."""
    return [head, "|" + " --- |" * (head.count("|") - 1), *("| " + " | ".join(row) + " |" for row in rows)]


def cells(row: Mapping[str, object], columns: Iterable[str]) -> dict[str, str]:
    """Return a row as a CSV has it: all its columns, six significant digits, nothing for None."""
    return {column: _text(row.get(column)) for column in columns}


def texts(rows: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    """Return rows as a CSV has them, each with the columns of all."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [cells(row, columns) for row in rows]


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], manifest: Mapping[str, object]) -> None:
    """Write rows with the same keys to a CSV, and the manifest to a JSON of the same name."""
    write_table(path, rows)
    write_json(path.with_suffix(".json"), manifest)


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys to a CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV; none where there is no such file."""
    return read_csv(path) if path.is_file() else []


def write_json(path: Path, manifest: Mapping[str, object]) -> None:
    """Write a manifest."""
    write_text(path, json.dumps(dict(manifest), indent=2) + "\n")
