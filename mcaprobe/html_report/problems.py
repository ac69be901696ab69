"""What went wrong, and what should a reader know before believing a number?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcaprobe.estimators import samples_needed, supported_probability
from mcaprobe.html_report.groups import Group, Shown

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence, how grave it is (`error`, `warning` or `note`), and whom it concerns."""

    kind: str
    where: str
    sentence: str


def of_groups(groups: Sequence[Group]) -> list[Problem]:
    """Return the problems of all runs, the gravest first; one that all runs of a group share is told once."""
    found: list[Problem] = []
    for group in groups:
        told = [_of_run(run) for run in group.runs]
        for run, sentences in zip(group.runs, told, strict=True):
            for kind, sentence in sentences:
                shared = all((kind, sentence) in others for others in told)
                where = group.title if shared else f"{group.title}, {run.label}"
                problem = Problem(kind, where, sentence)
                if problem not in found:
                    found.append(problem)
    return ordered(found)


def ordered(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems with the gravest first, else in the order given."""
    return sorted(problems, key=lambda problem: (ERROR, WARNING, NOTE).index(problem.kind))


def _of_run(run: Shown) -> list[tuple[str, str]]:
    manifest, rows = run.manifest, run.result.rows
    found = [(ERROR, str(failure)) for failure in manifest.get("failures") or []]
    found += [(WARNING, str(note)) for note in manifest.get("notes") or []]
    unmodelled = [name for name, how in (manifest.get("operators") or {}).items() if how == "unmodelled"]
    if unmodelled:
        names = ", ".join(unmodelled)
        found.append((WARNING, f"Operators rounded at their output only, which is too optimistic: {names}."))
    broken = [row for row in rows if row.region == "all" and (row.share_nan or row.share_inf)]
    if broken:
        found.append((WARNING, f"{len(broken)} layers hold NaN or infinity in a run; the first is {broken[0].layer}."))
    if str(manifest.get("commit") or "").endswith("+changes"):
        found.append((WARNING, "The source of mcaprobe had changes that were not committed."))
    return [*found, *_notes(run)]


def _notes(run: Shown) -> list[tuple[str, str]]:
    manifest, e, n = run.manifest, run.result.estimator, run.result.samples
    found = []
    if supported_probability(n, e.confidence) < e.probability:
        found.append(
            (NOTE, f"n = {n} samples support p = {supported_probability(n, e.confidence):.2f} without assumptions; "
             f"p = {e.probability:g} needs {samples_needed(e.probability, e.confidence)}.")
        )  # fmt: skip
    apart = (manifest.get("reference") or {}).get("output_difference_from_stock")
    if apart and apart.get("largest"):
        found.append(
            (NOTE, "The IEEE run of the compiled kernels differs from torch's by at most "
             f"{apart['largest']:.2g} of the largest output (root mean square {apart['rms']:.2g}).")
        )  # fmt: skip
    note = manifest.get("model_note")
    return [*found, (NOTE, str(note))] if note else found
