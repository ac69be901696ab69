"""How does a comparison reach a folder? A tidy CSV, a picture, and a manifest beside them."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mcaprobe.comparison import ComparedRow, Comparison
from mcaprobe.comparison_figure import FEW, draw_comparison, drawable
from mcaprobe.comparison_words import sentences
from mcaprobe.pairing import arithmetic_of, backend_of, input_of, model_of, place_of
from mcaprobe.products import save_figure
from mcaprobe.result import Result
from mcaprobe.spread import std_scatter
from mcaprobe.statistics import supported_probability
from mcaprobe.storage import write_csv, write_json

TABLE, PICTURE, ABOUT = "compare.csv", "compare.png", "compare.json"
RUN_COLUMNS = tuple(f"{key}_{letter}" for key in ("mode", "backend", "route", "seed") for letter in "ab")
COLUMNS = (*(field.name for field in fields(ComparedRow)), *RUN_COLUMNS, "estimator", "unstable")


def write(found: Comparison, out: Path) -> list[Path]:
    """Write the files into `out`, which is made when absent, each under a temporary name first; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / TABLE, out / ABOUT]
    write_csv(out / TABLE, records(found), COLUMNS)
    if drawable(found.rows):
        save_figure(picture(found), out / PICTURE)
        paths.insert(1, out / PICTURE)
    write_json(out / ABOUT, summary(found))
    return paths


def records(found: Comparison) -> list[dict[str, Any]]:
    """Return the lines of the CSV: the row, mode and backend of each run, what was asked; None is an empty cell."""
    common: dict[str, Any] = {"estimator": str(found.estimator), "unstable": str(found.unstable)}
    for letter, run in (("a", found.a), ("b", found.b)):
        common |= {f"{key}_{letter}": value for key, value in _arithmetic(run).items()}
    return [row.as_dict() | {"shape": "x".join(map(str, row.shape))} | common for row in found.rows]


def picture(found: Comparison) -> Any:
    """Return the figure, with what must be said of every picture below it."""
    a, b = found.a, found.b
    title = f"Two runs of {a.manifest['identity']['model']} on {Path(a.manifest['input']['name']).name}"
    n, m = a.samples, b.samples
    footer = (
        f"A: {arithmetic_of(a)}. B: {arithmetic_of(b)}. Bits: {found.estimator}. Standard deviations: root mean square "
        "over the elements that vary in both. Decisions: share of them that differ from the run's own IEEE "
        f"run. Unstable: {found.unstable}. At {found.estimator.confidence:.0%} confidence the samples support p = "
        f"{supported_probability(n, found.estimator.confidence):.2f} (A) and "
        f"{supported_probability(m, found.estimator.confidence):.2f} (B) without assumptions; the standard deviation "
        f"of one element scatters by {std_scatter(n):.0%} and {std_scatter(m):.0%}, so that two runs of one arithmetic "
        f"with other seeds do not agree fully either. What rests on fewer than {FEW} elements is not drawn."
    )
    return draw_comparison(found.rows, (_short(a), _short(b)), title, footer)


def _short(run: Result) -> str:
    return f"{run.manifest['mode']}, {place_of(run)}, n = {run.samples}"


def summary(found: Comparison) -> dict[str, Any]:
    """Return what compare.json holds: the runs, what both were scored by, the sentences, the missing layers."""
    return {
        "runs": {name: _about(run) for name, run in (("A", found.a), ("B", found.b))},
        "estimator": str(found.estimator),
        "unstable": {"rule": str(found.unstable), "below": found.unstable.below},
        "sentences": sentences(found),
        "missing": [asdict(missing) for missing in found.missing],
    }


def _about(run: Result) -> dict[str, Any]:
    return {
        "path": None if run.path is None else str(run.path),
        "model": model_of(run),
        "input": input_of(run),
        "samples": run.samples,
        "supported_probability": supported_probability(run.samples, run.estimator.confidence),
        "seconds": run.manifest["times"]["seconds"],
        **{key: run.manifest.get(key) for key in ("commit", "machine", "versions")},
        **_arithmetic(run),
    }


def _arithmetic(run: Result) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "mode": manifest["mode"],
        "backend": backend_of(run),
        "route": manifest.get("route"),
        "seed": manifest.get("seed"),
    }
