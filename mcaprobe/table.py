"""How do the rows of the table become a CSV file, and come back?"""

from dataclasses import fields
from typing import Any

from mcaprobe.storage import DamagedFile
from mcaprobe.summary import Row

TABLE = "table.csv"
COLUMNS = tuple(f.name for f in fields(Row))
TEXTS = ("layer", "operator", "region", "estimator")
COUNTS = ("elements", "samples")


def row_record(row: Row) -> dict[str, Any]:
    """Return a row as the fields of a CSV line: the shape as 1x64x32x32, None as an empty field."""
    record = {name: getattr(row, name) for name in COLUMNS}
    record["shape"] = "x".join(map(str, row.shape))
    return record


def row_of(record: dict[str, str]) -> Row:
    """Return the row of a CSV line; raise DamagedFile when a column is missing or is no number."""
    values: dict[str, Any] = {}
    try:
        for name in COLUMNS:
            text = record[name]
            if name in TEXTS:
                values[name] = text or None if name == "estimator" else text
            elif name == "shape":
                values[name] = tuple(int(size) for size in text.split("x") if size)
            elif name in COUNTS:
                values[name] = int(text)
            else:
                values[name] = float(text) if text else None
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"a line of {TABLE} cannot be read ({error})") from error
    return Row(**values)
