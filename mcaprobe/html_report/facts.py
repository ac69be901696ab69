"""What was run, on what, with what, and how? The manifest of a run as terms and sentences."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mcaprobe.html_report.groups import Group, Shown
from mcaprobe.result import arithmetic_of
from mcaprobe.settings import show_bytes

MODES = {
    "random": "each inexact result is rounded up or down with probability 1/2",
    "nearness": "stochastic rounding: up or down, the nearer neighbour with the higher probability",
    "up_down": "each result moves one unit in the last place up or down",
    "rr": "Monte Carlo arithmetic: results get random noise below the virtual precision",
    "pb": "Monte Carlo arithmetic: operands get random noise below the virtual precision",
    "full": "Monte Carlo arithmetic: operands and results get random noise below the virtual precision",
}


def of_group(group: Group) -> tuple[dict[str, str], list[str], list[list[str]]]:
    """Return what all runs of a group share, and a table of the rest.

    Returns:
        The shared facts by term; the heads of the table; its lines, one for each run, begun by the run's label. A
        single run has no table.
    """
    found = [of_run(run) for run in group.runs]
    terms = list(dict.fromkeys(term for facts in found for term in facts))
    shared = {term: found[0][term] for term in terms if len({facts.get(term) for facts in found}) == 1}
    other = [term for term in terms if term not in shared and term != "Slice"]  # which the label says
    lines = [[run.label, *(facts.get(term, "") for term in other)]
             for run, facts in zip(group.runs, found, strict=True)]  # fmt: skip
    return shared, ["run", *other], lines if len(group.runs) > 1 else []


def of_run(run: Shown) -> dict[str, str]:
    """Return the facts of a run by term; what the manifest does not say is left out."""
    manifest = run.manifest
    facts = {**_subject(run), **_arithmetic(run), **_machine(manifest), **_clock(manifest)}
    facts["Run directory"] = str(run.path)
    return {term: value for term, value in facts.items() if value}


def _subject(run: Shown) -> dict[str, str]:
    manifest = run.manifest
    identity, about = manifest["identity"], manifest["input"]
    facts = {
        "Model": f"{identity['model']}{_hash(identity.get('model sha256'), 'parameters')}",
        "The model says": manifest.get("model_note") or "",
        "Input": f"{about['name']}{_hash(about.get('file_sha256'), 'file')}",
        "Input tensor": f"{_sizes(about['shape'])}{_hash(identity.get('input sha256'), 'values')}",
    }
    place = run.result.place
    if place is not None:
        index = identity.get("input index")
        facts["Plane"] = place.plane
        pieces = manifest.get("pieces")
        if pieces is None:
            facts["Slice"] = f"{run.label}{' (the one with the most non-zero voxels)' if index is None else ''}"
        else:
            numbers = pieces["numbers"]
            facts["Pieces"] = f"{len(numbers)}, {pieces['kind']} {numbers[0]} to {numbers[-1]}"
        facts["Brain"] = about.get("mask_rule") or ""
    return facts


def _arithmetic(run: Shown) -> dict[str, str]:
    manifest, estimator = run.manifest, run.result.estimator
    mode, precision = manifest["mode"], manifest.get("precision")
    return {
        "Arithmetic": arithmetic_of(manifest),
        "Mode": f"{mode}: {MODES[mode]}" if mode in MODES else str(mode),
        "Virtual precision": "" if precision is None else f"{precision} bits",
        "Samples": f"n = {run.result.samples}, and one unperturbed IEEE run",
        "Estimator": str(estimator),
        "Probability p": f"{estimator.probability:g}",
        "Confidence": f"{estimator.confidence:g}",
        "Seed": _text(manifest.get("seed")),
        "Layers recorded": f"{len(manifest['layers'])} ({_globs(manifest, 'layers', 'all')})",
        "Moments kept": _globs(manifest, "keep_moments", "of no layer"),
    }


def _machine(manifest: Mapping[str, Any]) -> dict[str, str]:
    machine = manifest.get("machine") or {}
    verrou = (manifest.get("verrou") or {}).get("threads") or {}
    cores = machine.get("cores")
    parts = [machine.get("processor"), cores and f"{cores} cores", machine.get("torch_cpu_capability"),
             machine.get("device_name") or machine.get("device"), machine.get("system")]  # fmt: skip
    known = manifest.get("versions") or {}
    return {
        "Threads": _text(max(verrou.values()) if verrou else manifest.get("threads")),
        "Machine": ", ".join(str(part) for part in parts if part),
        "Versions": ", ".join(f"{name} {value}" for name, value in known.items()),
        "Commit": _text(manifest.get("commit")),
    }


def _clock(manifest: Mapping[str, Any]) -> dict[str, str]:
    times, memory = manifest.get("times") or {}, manifest.get("memory") or {}
    seconds, jobs = times.get("seconds"), times.get("jobs")
    return {
        "Wall clock": "" if seconds is None else f"{seconds:.1f} s{'' if jobs is None else f', {jobs} jobs at once'}",
        "Started": _text(times.get("started")),
        "Finished": _text(times.get("finished")),
        "Memory": "" if not memory.get("measured") else f"{show_bytes(memory['measured'])} at most",
        "Command": shlex.join(manifest.get("command") or []),
    }


def wall_clock(group: Group) -> str:
    """Return how long the runs of a group took in all, or nothing where a manifest does not say."""
    taken = [(run.manifest.get("times") or {}).get("seconds") for run in group.runs]
    known = [float(seconds) for seconds in taken if seconds is not None]
    return f"{sum(known):.1f} s" if len(known) == len(taken) else ""


def versions_of(groups: Sequence[Group]) -> list[str]:
    """Return the versions of mcaprobe that made the runs."""
    found = {str((run.manifest.get("versions") or {}).get("mcaprobe")) for group in groups for run in group.runs}
    return sorted(found)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _sizes(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _hash(value: Any, what: str) -> str:
    return f" (SHA-256 of its {what} {str(value)[:12]}…)" if value else ""


def _globs(manifest: Mapping[str, Any], key: str, none: str) -> str:
    globs = manifest["identity"].get(key) or []
    return none if not globs or (key == "layers" and list(globs) == ["*"]) else ", ".join(globs)
