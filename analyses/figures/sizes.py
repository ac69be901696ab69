"""Which of the papers' figures about size come out here? A table of all."""

from collections.abc import Iterator, Mapping, Sequence

from analyses.results_files import table

HEAD = "| system | figure | paper | here | the same | off by | each product once | |"


def markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the table, and before it how many come out."""
    same = sum(row["reproduced"] == "True" for row in rows)
    return [f"{same} of {len(rows)} figures come out as the paper's, rounded or cut.", "", *table(HEAD, _cells(rows))]


def _cells(rows: Sequence[Mapping[str, str]]) -> Iterator[list[str]]:
    for row in rows:
        here = float(row["here"])
        shown = f"{here:,.0f}" if here >= 1e6 else f"{here:.6g}"
        off = f"{round(float(row['difference']), 2) + 0.0:+.2f} %" if row["difference"] else ""
        yield [
            row["system"], row["quantity"], row["paper"], shown,
            "yes" if row["reproduced"] == "True" else "**no**", off, row["each_product_once"], row["reading"],
        ]  # fmt: skip
