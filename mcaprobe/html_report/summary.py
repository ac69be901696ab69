"""What should a reader know first? The key numbers, the bits through the network, and what n samples can claim."""

from __future__ import annotations

from collections.abc import Sequence

from mcaprobe.html_report.depth import depth_chart, means, regions_of
from mcaprobe.html_report.facts import wall_clock
from mcaprobe.html_report.groups import Group
from mcaprobe.html_report.markup import Child, Html, tag
from mcaprobe.html_report.problems import ERROR, WARNING, Problem
from mcaprobe.html_report.words import claims
from mcaprobe.regions import ALL
from mcaprobe.result import arithmetic_of
from mcaprobe.rows import Row


def summary(groups: Sequence[Group], problems: Sequence[Problem]) -> Html:
    """Return the key numbers, the bits through the network, and what n samples can claim, of each group."""
    parts: list[Child] = []
    claimed = [_claim(group) for group in groups]
    for group, claim in zip(groups, claimed, strict=True):
        several = len(groups) > 1
        chart = depth_chart(group)
        parts += [
            tag("h3", group.title) if several else None,
            tag("p", _lead(group), class_="lead"),
            [_numbers(group, region) for region in regions_of(group)],
            [tag("h4" if several else "h3", "Significant bits through the network"), chart] if chart else None,
            claim if len(set(claimed)) > 1 else None,
        ]
    if len(set(claimed)) == 1:  # all groups have the same n and the same estimator
        parts.append(claimed[0])
    return tag("section", tag("h2", "Summary"), parts, _told(problems), id="summary")


def _claim(group: Group) -> Html:
    title = tag("strong", f"What {group.first.samples} samples can and cannot claim")
    return tag("div", title, tag("p", claims(group)), class_="callout")


def _told(problems: Sequence[Problem]) -> Html:
    counts = [(kind, sum(problem.kind == kind for problem in problems)) for kind in (ERROR, WARNING)]
    words = " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts if count)
    return tag("p", tag("a", words, href="#problems"), ".") if words else tag("p", "No errors, no warnings.")


def _lead(group: Group) -> str:
    result = group.first
    manifest = result.manifest
    count = _counted(group)
    clock = wall_clock(group)
    return (
        f"{count}, {len(manifest['layers'])} layers{f', {clock} of wall clock' if clock else ''}. n = {result.samples} "
        f"samples and the IEEE run{' each' if len(group.runs) > 1 else ''}, mode {manifest['mode']}, "
        f"{arithmetic_of(manifest)}. Significant bits: {result.estimator}."
    )


def _counted(group: Group) -> str:
    """Return what was run: slices, volumes and their pieces, or tensors."""
    pieces = group.first.manifest.get("pieces")
    if pieces is None:
        what = f"{group.plane} slice" if group.plane else "run"
        return f"One {what}" if len(group.runs) == 1 else f"{len(group.runs)} {what}s"
    number = len(pieces["numbers"])
    one, more = (f"{group.plane} slice", "s") if pieces["kind"] == "slice" else (pieces["kind"], "es")
    many = f"{number} {one}{more * (number > 1)}{' each' * (len(group.runs) > 1)}"
    return f"One volume of {many}" if len(group.runs) == 1 else f"{len(group.runs)} volumes of {many}"


def _numbers(group: Group, region: str) -> Html | None:
    """Return the numbers of most interest in a region; None where no layer has bits there."""
    found = {name: rows for name, rows in means(group, region).items() if rows}
    if not found:
        return None
    worst = min(found, key=lambda name: min(row.bits_mean or 0.0 for row in found[name]))
    noisy = max(found, key=lambda name: max(row.share_noise or 0.0 for row in found[name]))
    numbers = [("Fewest bits", _bits(found[worst]), worst), ("Most noise", _share(found[noisy]), noisy)]
    output = group.first.manifest.get("output")
    if output in found:
        numbers.insert(0, ("Output", _bits(found[output]), str(output)))
    where = "whole layer" if region == ALL else region
    items = [tag("div", tag("dt", f"{name}, {where}"), tag("dd", value), tag("dd", layer, class_="more"))
             for name, value, layer in numbers]  # fmt: skip
    return tag("dl", items, class_="numbers")


def _bits(rows: Sequence[Row]) -> str:
    values = [row.bits_mean or 0.0 for row in rows]
    return f"{_between(f'{min(values):.1f}', f'{max(values):.1f}')} bits"


def _share(rows: Sequence[Row]) -> str:
    values = [100 * (row.share_noise or 0.0) for row in rows]
    if not max(values):
        return "none"
    return "below 0.1 %" if max(values) < 0.05 else f"{_between(f'{min(values):.1f}', f'{max(values):.1f}')} %"


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
