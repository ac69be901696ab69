"""What has to be said of a comparison, wherever its numbers stand?"""

from __future__ import annotations

from collections.abc import Sequence

from mcaprobe.comparison import ComparedRow, Comparison
from mcaprobe.estimators import samples_needed, shift, supported_probability
from mcaprobe.metrics import PREFIX
from mcaprobe.pairing import arithmetic_of, input_of, model_of
from mcaprobe.regions import ALL
from mcaprobe.result import Result
from mcaprobe.spread import std_scatter

LISTED = 8  # layers of one run only that are named one by one


def sentences(found: Comparison) -> list[str]:
    """Return all of it: the runs, what the columns mean, what n supports, and what could not be compared."""
    return [*runs(found), wall_clock(found), *definitions(found), *limits(found), *differences(found), *gaps(found)]


def runs(found: Comparison) -> list[str]:
    """Return what A and B are."""
    return [f"{name} is {run.path or 'in memory'}: {arithmetic_of(run)}." for name, run in _named(found)]


def wall_clock(found: Comparison) -> str:
    """Return how long each run took, all that it wrote included, on what, and the ratio."""
    taken = [run.manifest["times"]["seconds"] for run in (found.a, found.b)]
    a, b = (f"{seconds:.1f} s ({_power(run)})" for seconds, run in zip(taken, (found.a, found.b), strict=True))
    return f"Wall clock: {a} for A, {b} for B; A/B = {taken[0] / taken[1]:.3g}."


def _power(run: Result) -> str:
    manifest = run.manifest
    threads = (manifest.get("verrou") or {}).get("threads") or {"": manifest["threads"]}
    most, jobs = max(threads.values()), manifest["times"].get("jobs")
    at_once = "" if jobs is None else f"jobs: {jobs}, "
    machine = manifest["machine"]
    return f"{at_once}threads: {most}, {machine['processor']}, cores: {machine['cores']}"


def definitions(found: Comparison) -> list[str]:
    """Return what the numbers mean."""
    return [
        f"Significant bits of both: {found.estimator}; bits: mean over the elements that are numbers; noise: share of "
        "class noise; index: share of the decisions (indices of poolings, labels) that differ from the run's own IEEE "
        "run.",
        "std A/B: root mean square of the standard deviations (n - 1) of A over that of B, both over the elements that "
        "vary in both; a few elements that jump in one run alone can outweigh all others.",
        f"Unstable: {found.unstable}. Dice, precision and recall hold A's unstable elements against B's; where there "
        "is no element to divide by they are empty.",
    ]


def limits(found: Comparison) -> list[str]:
    """Return what so few samples support."""
    confidence, (n, m) = found.estimator.confidence, (found.a.samples, found.b.samples)
    supported = " and ".join(
        f"n = {count} samples ({name}) support p = {supported_probability(count, confidence):.2f}"
        for name, count in (("A", n), ("B", m))
    )
    lines = [
        f"{supported} at {confidence:.0%} confidence without assumptions (General); "
        f"p = 0.95 needs {samples_needed(0.95, confidence)}, p = 0.99 needs {samples_needed(0.99, confidence)}.",
        f"The standard deviation of one element scatters by {std_scatter(n):.0%} in A and {std_scatter(m):.0%} in B "
        "(normal samples), and the masks follow from such estimates: two runs of one arithmetic with other seeds do "
        "not agree fully either.",
    ]
    costs = [shift(count, found.estimator) for count in (n, m)]
    if costs[0] != costs[1]:
        lines.append(
            f"The bits pay {costs[0]:.2f} for p and confidence at n = {n} and {costs[1]:.2f} at n = {m}: of equal "
            f"noise {'B' if n < m else 'A'} has {abs(costs[0] - costs[1]):.2f} bits more."
        )
    return lines


def differences(found: Comparison) -> list[str]:
    """Return in what the runs differ that is no arithmetic, and may still show in the numbers."""
    lines = []
    for what, shown in (("model", model_of), ("input", input_of)):
        if shown(found.a) != shown(found.b):
            lines.append(f"One {what} under two names: {shown(found.a)} in A, {shown(found.b)} in B.")
    manifests = found.a.manifest, found.b.manifest
    for key, part, name in (("instruction set", "machine", "torch_cpu_capability"), ("torch", "identity", "torch")):
        one, two = (manifest[part].get(name) for manifest in manifests)
        if one != two:
            lines.append(f"The {key} differs: {one} in A, {two} in B.")
    for name, run in _named(found):
        if run.estimator != found.estimator:
            lines.append(f"The table of {name} itself was made by another estimator ({run.estimator}).")
    return lines + _unperturbed(found)


def _unperturbed(found: Comparison) -> list[str]:
    known = [row for row in found.rows if row.region == ALL and row.ieee_differs is not None]
    other = [row for row in known if row.ieee_differs]
    if not other:
        return []
    most = max(other, key=lambda row: row.ieee_differs or 0.0)
    return [
        f"The unperturbed runs of A and B differ in {len(other)} of {len(known)} layers (most in {most.layer}: "
        f"{most.ieee_differs:.1%} of the elements): each run is scored against its own."
    ]


def gaps(found: Comparison) -> list[str]:
    """Return what could not be compared, and what would mend it."""
    whole = [row for row in found.rows if row.region == ALL and not row.is_index]
    lines = [
        f"{len(without)} of {len(whole)} layers of {name} kept no moments: their bits are right within 1/16 bit, their "
        "standard deviations and unstable elements are not compared; run it with --keep-moments '*'."
        for name, without in (("A", _binned(whole, "a")), ("B", _binned(whole, "b")))
        if without
    ]
    for name in "AB":
        only = [missing for missing in found.missing if missing.run == name]
        lines += [f"{missing}." for missing in only[:LISTED]]
        if len(only) > LISTED:
            lines.append(f"{len(only) - LISTED} more layers are only in {name}: --json lists them.")
    return lines


def _binned(rows: Sequence[ComparedRow], letter: str) -> list[ComparedRow]:
    return [row for row in rows if getattr(row, f"source_{letter}") == "histogram" and not row.layer.startswith(PREFIX)]


def _named(found: Comparison) -> tuple[tuple[str, Result], tuple[str, Result]]:
    return ("A", found.a), ("B", found.b)
