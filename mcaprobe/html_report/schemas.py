"""What does a CSV file of measurements hold? Its columns decide; a mistake is told with file, line, column."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcaprobe.errors import InputError

SKIPPING, WALL_CLOCK, AGREEMENT, PLAIN = "skipping", "wall clock", "agreement", "table"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a schema.

    Attributes:
        kind: `text`, `number`, or `count` (a whole number).
        low, high: Bounds of a number, both allowed; `above`: whether low itself is not.
        required: Whether the column has to be there; `filled`: whether each of its cells has to hold something.
    """

    name: str
    about: str
    kind: str = "text"
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    required: bool = True
    filled: bool = True


def _share(name: str, about: str, **options: bool) -> Column:
    return Column(name, about, "number", 0.0, 1.0, **options)


SCHEMAS: dict[str, tuple[Column, ...]] = {
    SKIPPING: (
        Column("method", "what was done, such as stock or conservative"),
        Column("threshold", "its setting; empty where it has none", "number", filled=False),
        _share("skipped_share", "share of the work that was skipped"),
        Column("score", "how good the result is; higher is better", "number", filled=False),
        Column("score_name", "what the score is, such as Dice", required=False),
        Column("subject", "whom it was measured on", required=False, filled=False),
    ),
    WALL_CLOCK: (
        Column("way", "what was timed; stock, or the first line, is what the others are compared with"),
        Column("threads", "threads that it had", "count", 1),
        Column("seconds", "wall clock", "number", 0, above=True),
        Column("speed_up", "stock over this; computed where it is not given", "number", 0, above=True,
               required=False, filled=False),
        Column("low", "lower bound of speed_up, or of seconds where no column speed_up is given", "number", 0,
               required=False, filled=False),
        Column("high", "upper bound likewise", "number", 0, required=False, filled=False),
    ),
    AGREEMENT: (
        Column("layer", "name of the layer"),
        Column("subject", "whom it was measured on"),
        _share("dice", "2 |A and B| / (|A| + |B|)", filled=False),
        _share("precision", "|A and B| / |A|", filled=False),
        _share("recall", "|A and B| / |B|", filled=False),
        Column("mcc", "Matthews correlation coefficient", "number", -1, 1, filled=False),
        _share("chance_dice", "Dice of two independent masks of these sizes", required=False, filled=False),
        Column("tensor", "which tensor of the layer", required=False, filled=False),
        Column("threshold", "setting", "number", required=False, filled=False),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """A file of measurements.

    Attributes:
        kind: SKIPPING, WALL_CLOCK, AGREEMENT or PLAIN.
        columns: All of the file's, in its order.
        lines: The texts of each line by column.
    """

    path: Path
    kind: str
    columns: tuple[str, ...]
    lines: tuple[Mapping[str, str], ...]

    def number(self, line: Mapping[str, str], column: str) -> float | None:
        """Return the number of a cell; None where it is empty, NaN, or the file has no such column."""
        return number(line.get(column, ""))


def number(text: str) -> float | None:
    """Return a finite number; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_rows(path: Path) -> Rows:
    """Return a CSV file (UTF-8, a header, commas).

    Raises:
        InputError: no file, no CSV with a header and a line, or a cell that its schema does not allow.
    """
    records = _records(path)
    if not records:
        raise InputError(f"{path}, line 1: expected a header with the names of the columns, got an empty file.")
    columns = tuple(name.strip() for name in records[0][1])
    _check_header(path, columns)
    kind = kind_of(columns)
    lines = []
    for at, cells in records[1:]:
        if len(cells) != len(columns):
            raise InputError(f"{path}, line {at}: expected {len(columns)} columns, got {len(cells)}.")
        line = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
        _check_line(path, at, line, kind)
        lines.append(line)
    if not lines:
        raise InputError(f"{path}, line 2: expected a line of values below the header, got none.")
    return Rows(path, kind, columns, tuple(lines))


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not empty, and the number of the line it ends on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise InputError(f"Expected a CSV file in UTF-8, got {path}: byte {error.start} is none of it.") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
    except OSError as error:
        raise InputError(f"Cannot read the rows {path}: {error.strerror}.") from error


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    for number, name in enumerate(columns, start=1):
        if not name:
            raise InputError(f"{path}, line 1, column {number}: expected a name, got an empty cell.")
        if columns.index(name) != number - 1:
            raise InputError(f"{path}, line 1, column {name}: the name is there twice.")


def kind_of(columns: tuple[str, ...]) -> str:
    """Return the first schema all of whose required columns are there, else PLAIN."""
    for kind, schema in SCHEMAS.items():
        if all(column.name in columns for column in schema if column.required):
            return kind
    return PLAIN


def _check_line(path: Path, at: int, line: Mapping[str, str], kind: str) -> None:
    for column in SCHEMAS.get(kind, ()):
        if column.name in line:
            expected = _objection(column, line[column.name])
            if expected is not None:
                raise InputError(
                    f"{path}, line {at}, column {column.name}: expected {expected}, got {line[column.name]!r}."
                )


def _objection(column: Column, text: str) -> str | None:
    """Return what was expected where a cell does not hold it; an empty or NaN cell says that nothing was measured."""
    empty = text == "" or (column.kind != "text" and text.lower() == "nan")
    if empty:
        return _expected(column) if column.filled else None
    if column.kind == "text":
        return None
    value = number(text)
    good = value is not None and column.low <= value <= column.high and not (column.above and value == column.low)
    whole = value is not None and value == int(value)
    return None if good and (column.kind != "count" or whole) else _expected(column)


def _expected(column: Column) -> str:
    if column.kind == "text":
        return "a text"
    what = "a whole number" if column.kind == "count" else "a number"
    if column.above:
        return f"{what} above {column.low:g}"
    if math.isfinite(column.low) and math.isfinite(column.high):
        return f"{what} from {column.low:g} to {column.high:g}"
    return f"{what} of at least {column.low:g}" if math.isfinite(column.low) else what
