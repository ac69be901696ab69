"""What does a reader see who reads from the top? The sections of the page that need no script."""

from __future__ import annotations

from collections.abc import Sequence

from mcaprobe.html_report.facts import of_group
from mcaprobe.html_report.groups import Group
from mcaprobe.html_report.markup import Child, Html, escaped, tag
from mcaprobe.html_report.overlays import NAN, UNSTABLE, AgreementRow, Overlays
from mcaprobe.html_report.problems import ERROR, NOTE, WARNING, Problem
from mcaprobe.html_report.row_charts import section_of
from mcaprobe.html_report.schemas import Rows
from mcaprobe.html_report.tables import head, plain, sortable, terms
from mcaprobe.html_report.words import Reference, methods

AGREEMENT = "Agreement of NaN and unstable positions"
_KINDS = {UNSTABLE: "unstable elements", NAN: "NaN maps"}
_COUNTED = (
    "A position counts where at least one channel is marked, or NaN. Precision: share of the NaN positions that are "
    "unstable; recall: share of the unstable positions that are NaN."
)
# Of the table of layers: head, column of table.csv (two are added up with +), kind, what it means.
LAYER_COLUMNS = (
    ("#", "order", "count", "place in the order of execution"),
    ("layer", "layer", "text", "name of the layer"),
    ("region", "region", "text", "brain, background or all of the layer"),
    ("bits", "bits_mean", "bits", "mean significant bits of the elements that are numbers"),
    ("5th pct.", "bits_p05", "bits", "5th percentile of these bits"),
    ("number", "share_number", "share", "share that has significant bits"),
    ("noise", "share_noise", "share", "share without any significant bit"),
    ("zero", "share_zero", "share", "share that is 0 in every run"),
    ("exact", "share_exact", "share", "share that equals the IEEE run in every sample"),
    ("shifted", "share_shifted", "share", "share that is constant, at another value than the IEEE run's"),
    ("NaN, ∞", "share_nan+share_inf", "share", "share that was NaN or infinite in a run"),
    ("undef.", "share_undefined", "share", "share without any finite sample"),
    ("snr < 1", "share_snr_below_1", "share", "share whose standard deviation is at least the size of its mean"),
    ("index", "index_change_rate", "share", "share of the decisions (indices, labels) that differ from the IEEE run's"),
    ("elements", "elements", "count", "elements of the region; of poolings their windows, of labels their voxels"),
    ("operator", "operator", "text", "what computes it"),
    ("shape", "shape", "text", "of the whole layer"),
)


def runs(groups: Sequence[Group]) -> Html:
    """Return what was run, group by group."""
    parts: list[Child] = []
    for group in groups:
        shared, heads, lines = of_group(group)
        parts.append(tag("h3", group.title) if len(groups) > 1 else None)
        parts.append(terms([(term, _fact(term, value)) for term, value in shared.items()]))
        parts.append(plain(heads, lines, f"What differs between the runs of {group.title}") if lines else None)
    return escaped(parts)


def _fact(term: str, value: str) -> Child:
    return tag("code", value) if term in ("Command", "Commit", "Run directory") else value


def layer_table() -> Html:
    """Return the table of layers without its lines, which the script fills in."""
    heads = [head(label, key, kind, about) for label, key, kind, about in LAYER_COLUMNS]
    caption, top = tag("caption", "Table of layers", class_="hidden"), tag("thead", tag("tr", heads))
    return tag("table", caption, top, tag("tbody"), id="layer-table")


def overlay_notes(overlays: Overlays, agreement: Sequence[AgreementRow]) -> Html:
    """Return what the masks and NaN maps are, and how far they agree."""
    parts: list[Child] = []
    if overlays.sources:
        facts = [(_KINDS[s.kind], [tag("p", tag("strong", s.name)), tag("p", s.statement),
                  tag("p", tag("code", ", ".join(map(str, s.folders))))]) for s in overlays.sources]  # fmt: skip
        parts += [tag("h3", "Masks and NaN maps"), terms(facts)]
    if agreement:
        parts += [tag("h3", AGREEMENT), tag("p", _COUNTED, class_="note"), _agreement_table(agreement)]
    return escaped(parts)


def _agreement_table(rows: Sequence[AgreementRow]) -> Html:
    """Return the counts; which mask and which NaN map are named only where there are several."""
    named = len({(row.unstable, row.nan) for row in rows}) > 1
    heads = ["layer", "slice", *(["unstable", "NaN"] if named else []), "positions", "unstable and NaN", "only NaN",
             "only unstable", "Dice", "precision", "recall"]  # fmt: skip
    lines: list[list[Child]] = []
    for row in rows:
        counts = row.counts
        ratios = (_ratio(value) for value in (counts.dice, counts.precision, counts.recall))
        names = [row.unstable, row.nan] if named else []
        lines.append([row.layer, row.slice, *names, counts.elements, counts.both, counts.a - counts.both,
                      counts.b - counts.both, *ratios])  # fmt: skip
    return sortable(heads, lines, AGREEMENT)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def measured(rows: Sequence[Rows]) -> Html | None:
    """Return the section of the CSV files; None without any."""
    if not rows:
        return None
    return tag("section", tag("h2", "Accuracy, time, agreement"), [section_of(each) for each in rows], id="rows")


def methods_text(groups: Sequence[Group], overlays: Overlays, cited: Sequence[Reference]) -> Html:
    """Return paragraphs for a paper, with a button that copies them, and what they cite."""
    paragraphs: list[Html] = []
    for group in groups:
        there = overlays.on(group)
        rules = list(dict.fromkeys(s.name for s in there if s.kind == UNSTABLE))
        notes = list(dict.fromkeys(s.statement for s in there if s.kind == NAN))
        paragraphs += [tag("p", text) for text in methods(group, rules, notes)]
    items = [tag("li", r.text, [" ", tag("a", f"doi:{r.doi}", href=f"https://doi.org/{r.doi}")] if r.doi else None)
             for r in cited]  # fmt: skip
    cited_list = [tag("h3", "References"), tag("ul", items, class_="references")]
    button = tag("button", "Copy the text", type="button", id="copy")
    return escaped([
        tag("p", "Written to be copied into a paper.", class_="note"),
        tag("div", paragraphs, cited_list, id="boilerplate", class_="paper"),
        tag("div", button, tag("span", role="status", id="copied"), class_="controls"),
    ])  # fmt: skip


def problem_list(problems: Sequence[Problem]) -> Html:
    """Return errors, warnings and notes, the gravest first."""
    parts: list[Child] = []
    for kind, title in ((ERROR, "Errors"), (WARNING, "Warnings"), (NOTE, "Notes")):
        found = [p for p in problems if p.kind == kind]
        if found:
            items = [tag("li", tag("span", p.where, class_="where"), " ", p.sentence) for p in found]
            parts += [tag("h3", f"{title}: {len(found)}"), tag("ul", items, class_=f"problems is-{kind}")]
        elif kind != NOTE:
            parts.append(tag("p", f"No {title.lower()}."))
    return escaped(parts)


def about(facts: Sequence[tuple[str, str]], sources: Sequence[tuple[str, str]]) -> Html:
    """Return what made the report, and the files that it was made from."""
    read = plain(["file or folder", "what was read"], [[tag("code", name), what] for name, what in sources], "Sources")
    return escaped([terms(facts), tag("h3", "Sources"), read])

