"""How is a table sorted by a click, or by a key? Its heads are buttons; the script reads the value of each cell."""

from __future__ import annotations

from collections.abc import Sequence

from mcaprobe.html_report.markup import Child, Html, tag
from mcaprobe.html_report.schemas import number


def head(label: str, key: str | None = None, kind: str | None = None, about: str | None = None) -> Html:
    """Return a head that sorts its column; `key` and `kind` are for the script that fills the table of layers."""
    button = tag("button", tag("span", label), type="button", title=about)
    return tag("th", button, scope="col", data_key=key, data_kind=kind, class_="n" if kind in _NUMBERS else None)


_NUMBERS = ("count", "bits", "share")


def sortable(columns: Sequence[str], lines: Sequence[Sequence[Child]], caption: str) -> Html:
    """Return a table that can be sorted; a column whose filled cells are all numbers is set to the right."""
    texts = [[str(cell) for cell in line] for line in lines]
    kinds = ["bits" if _numeric([line[k] for line in texts]) else "text" for k in range(len(columns))]
    classes = ["n" if kind in _NUMBERS else None for kind in kinds]
    body = [tag("tr", [tag("td", cell, class_=c) for cell, c in zip(line, classes, strict=True)]) for line in texts]
    heads = [head(name, kind=kind) for name, kind in zip(columns, kinds, strict=True)]
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", tag("tr", heads)), tag("tbody", body),
                class_="sortable")  # fmt: skip
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell not in ("", "nan")]
    return bool(filled) and all(number(cell) is not None for cell in filled)


def plain(heads: Sequence[str], lines: Sequence[Sequence[Child]], caption: str) -> Html:
    """Return a table that is not sorted."""
    body = [tag("tr", [tag("th", line[0], scope="row"), *(tag("td", cell) for cell in line[1:])]) for line in lines]
    top = tag("thead", tag("tr", [tag("th", name, scope="col") for name in heads]))
    table = tag("table", tag("caption", caption, class_="hidden"), top, tag("tbody", body))
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def terms(facts: Sequence[tuple[str, Child]]) -> Html:
    """Return terms and what they are."""
    return tag("dl", [tag("div", tag("dt", term), tag("dd", value)) for term, value in facts], class_="facts")
