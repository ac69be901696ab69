"""What is made of the rows of `validate` and `calibrate`: summaries, pages, figures, and rows for mcaprobe report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analyses.figures import calibration as calibrated
from analyses.figures.validation import draw, draw_digits
from analyses.figures.validation_tables import markdown
from analyses.results_files import page, read_table, texts
from analyses.validation import summary
from analyses.validation.agreement import agreement_of
from analyses.validation.calibration import held_out
from analyses.validation.study import DIGITS
from mcaprobe.errors import InputError

Rows = Sequence[Mapping[str, str]]
Made = Figure | str | list[dict[str, str]]
PREFIXES = {"validate": "validation", "calibrate": "calibration"}  # of the names of results, by command
SUMMARIES = ("layers", "windows", "places")


def drawn(folder: Path, command: str, name: str | None = None) -> Iterator[tuple[Path, Made]]:
    """Yield path and content of what is made of the rows of a command.

    Args:
        name: Of its results; None: all that are in the folder, InputError where there are none.
    """
    prefix, make = PREFIXES[command], {"validate": _validation, "calibrate": _calibration}[command]
    for each in _names(folder, prefix, command) if name is None else [name]:
        stem = folder / f"{prefix}_{each}"
        yield from make(stem, each, json.loads(stem.with_suffix(".json").read_text()))


def _validation(stem: Path, name: str, about: Mapping[str, Any]) -> Iterator[tuple[Path, Made]]:
    """Yield path and content: summaries and rows for the report as tables, the page, the figures."""
    raw = {table: rows_of(stem, table) for table in (*SUMMARIES, "networks", DIGITS)}
    made: dict[str, list[dict[str, str]]] = {
        "layers": texts(list(summary.layers(raw["layers"]))), "windows": texts(list(summary.windows(raw["windows"]))),
        "places": texts(list(summary.places(raw["places"]))),
    }  # fmt: skip
    for table, rows in made.items():
        yield _named(stem, f"{table}_summary.csv"), rows
    main = raw["layers"][0]["criterion"]
    for method in dict.fromkeys(row["method"] for row in raw["layers"]):
        chosen = [row for row in raw["layers"] if (row["method"], row["criterion"]) == (method, main)]
        yield _named(stem, f"agreement_{method}.csv"), _agreement(chosen)
    yield _named(stem, "skipped.csv"), _skipped(raw["networks"], about["plan"]["threshold"])
    lines = markdown(made["layers"], made["windows"], raw["networks"], raw[DIGITS])
    title = f"Do the NaNs land where the digits are lost? {name}"
    yield stem.with_suffix(".md"), page(title, f"{stem.name}_layers_summary.csv", lines)
    words = validation_words(about)
    places = [row for row in made["places"] if row["criterion"] == main]
    yield stem.with_suffix(".png"), draw(made["windows"], made["layers"], places, words)
    if raw[DIGITS]:
        probes = f"{about['plan']['probes']} samples of each network, on the first slice of each subject."
        yield _named(stem, "digits.png"), draw_digits(raw[DIGITS], f"{probes} Masks of the oracle:\n{words}")


def _agreement(rows: Rows) -> list[dict[str, str]]:
    """Return rows as `mcaprobe report --rows` reads them: agreement of the NaNs with the unstable elements."""
    scores = ("dice", "precision", "recall", "mcc", "chance_dice")
    return texts([
        {"layer": row["layer"], "subject": row["subject"], "tensor": f"output ({row['operator']})",
         "criterion": row["criterion"]} | {name: getattr(agreement_of(row), name) for name in scores}
        for row in rows
    ])  # fmt: skip


def _skipped(rows: Rows, threshold: float) -> list[dict[str, str]]:
    """Return rows as `mcaprobe report --rows` reads them: score over the share of the work that is skipped."""
    stock = [
        {"method": "stock", "threshold": None, "skipped_share": 0.0, "score": row.get("dice_stock"),
         "score_name": "Dice", "subject": row["subject"]}
        for row in {row["subject"]: row for row in rows}.values()
    ]  # fmt: skip
    return texts([*stock, *(
        {"method": row["method"], "threshold": threshold, "skipped_share": int(row["spared"]) / int(row["macs"]),
         "score": row.get("dice"), "score_name": "Dice", "subject": row["subject"]}
        for row in rows
    )])  # fmt: skip


def _calibration(stem: Path, name: str, about: Mapping[str, Any]) -> Iterator[tuple[Path, Made]]:
    """Yield path and content: what held-out subjects say (of two or more), the page and the figure."""
    sweep, areas = rows_of(stem, "sweep"), rows_of(stem, "areas")
    judged = texts(list(held_out(sweep)))
    if judged:
        yield _named(stem, "held_out.csv"), judged
    title = f"A tolerance of ties from measurement: {name}"
    lines = calibrated.markdown(sweep, areas, judged)
    yield stem.with_suffix(".md"), page(title, f"{stem.name}_sweep.csv", lines)
    yield stem.with_suffix(".png"), calibrated.draw(sweep, counted(about, about["sampling"]["samples"]))


def rows_of(stem: Path, table: str) -> list[dict[str, str]]:
    """Return the rows of a table beside `stem`; none where there is no such file."""
    return read_table(_named(stem, f"{table}.csv"))


def validation_words(about: Mapping[str, Any]) -> str:
    """Return what a figure of `validate` says of its numbers."""
    sampling = about["plan"]["sampling"]
    return f"Unstable: class noise or below {sampling['below']:g} bit. {counted(about, sampling['samples'])}"


def counted(about: Mapping[str, Any], samples: int) -> str:
    """Return how many subjects, slices and samples were looked at, how, when and where."""
    subjects, slices, threads = len(about["subjects"]), about["slices"], about["threads"]
    each = f"{slices} slice{'s' if slices > 1 else ''}{' each' if subjects > 1 else ''}"
    return (
        f"n = {subjects} subject{'s' if subjects > 1 else ''}, {each}; {samples} samples, mode random, emulated; "
        f"{threads} thread{'s' if threads > 1 else ''}, {about['machine']['processor']}, torch "
        f"{about['versions']['torch']}, {about['date'][:10]}."
    )


def _named(stem: Path, end: str) -> Path:
    return stem.with_name(f"{stem.name}_{end}")


def _names(folder: Path, prefix: str, command: str) -> list[str]:
    """Return the names of the results of a command, by their manifests."""
    found = sorted(path.stem.removeprefix(f"{prefix}_") for path in folder.glob(f"{prefix}_*.json"))
    names = [name for name in found if not name.endswith("_overrides")]
    if not names:
        raise InputError(f"Expected {prefix}_*.json in {folder}: `python -m analyses {command}` makes them.")
    return names


