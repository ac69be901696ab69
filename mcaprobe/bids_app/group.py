"""What do the subjects of a derivative dataset have in common? Mean and interval of each layer and region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from mcaprobe import bids
from mcaprobe.bids_app.derivatives import NOTHING
from mcaprobe.bids_app.folder import Folder
from mcaprobe.errors import InputError
from mcaprobe.intervals import student_interval
from mcaprobe.result import arithmetic_of
from mcaprobe.storage import read_csv, read_json, write_csv, write_json

Interval = Literal["t", "bootstrap"]
MEASURES = ("bits_mean", "share_noise", "index_change_rate")  # columns of the tables of the images
TABLE = f"group_{bids.SIGBITS}.tsv"
FACTS = ("Model", "Samples", "Mode", "Precision", "Seed", "Route", "Estimator")  # of the JSON files of the images
RESAMPLES = 9999
Key = tuple[str, str, str, str]  # layer, operator, region, measure


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A measure of one layer in one region over the subjects.

    Attributes:
        measure: `bits_mean` (bits), `share_noise` or `index_change_rate` (shares).
        subjects: How many subjects have a value; of each the mean over its images and slices counts.
        mean: Over the subjects.
        low, high: Bounds of the mean; None for a single subject.
        std: Standard deviation over the subjects (n - 1); None for a single subject.
        least, most: Smallest and largest value of a subject.
    """

    layer: str
    operator: str
    region: str
    measure: str
    subjects: int
    mean: float
    low: float | None
    high: float | None
    std: float | None
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Group:
    """What the subjects have in common.

    Attributes:
        rows: In the order of execution.
        values: Of each row its values by subject.
        subjects: Labels of those with results.
        missing: Names of images that failed, and why.
        facts: What the JSON files of all tables say alike of model, samples and arithmetic.
    """

    rows: list[GroupRow]
    values: list[dict[str, float]]
    subjects: list[str]
    missing: dict[str, str]
    interval: Interval
    level: float
    facts: dict[str, Any]

    @property
    def interval_words(self) -> str:
        """What the interval is, for captions."""
        how = "Student's t" if self.interval == "t" else f"bootstrap (BCa, {RESAMPLES} resamples, seed stated)"
        return f"{self.level:.0%} interval of the mean over subjects by {how}"

    @property
    def run_words(self) -> str:
        """What was run of each image, for captions; empty where its JSON files do not say."""
        if not {"Samples", "Mode", "Route", "Estimator"} <= self.facts.keys():
            return ""
        n, mode, route, estimator = (self.facts[key] for key in ("Samples", "Mode", "Route", "Estimator"))
        way = arithmetic_of({"route": route})
        return f"Each image: n = {n} samples and the IEEE run, mode {mode}, {way}; {estimator}."


def group(
    folder: Folder, *, participants: Sequence[str] = (), interval: Interval = "t", level: float = 0.95, seed: int = 0
) -> Group:
    """Return means and intervals over the subjects whose tables are in the folder.

    Args:
        participants: Labels; empty: all that have a table.
        interval: `t`: Student's t of the subjects' values, which takes them to be normal, so that bounds of small
            shares may lie below 0; `bootstrap`: bias-corrected and accelerated bootstrap of the mean
            (scipy.stats.bootstrap), which needs more than a few subjects.
        level: Confidence of the interval.
        seed: Of the bootstrap.
    Raises:
        InputError: no derivatives, no table, a subject without one, a level out of its range.
    """
    if interval not in get_args(Interval):
        raise InputError(f"Expected the interval t or bootstrap, got {interval!r}.")
    if not 0 < level < 1:
        raise InputError(f"Expected a level between 0 and 1, got {level:g}.")
    if not folder.is_ours():
        raise InputError(f"{folder.out} holds no derivatives of mcaprobe bids: run the level participant first.")
    wanted = [label.removeprefix("sub-") for label in participants]
    tables = {label: paths for label, paths in tables_of(folder.out).items() if not wanted or label in wanted}
    absent = [label for label in wanted if label not in tables]
    if absent:
        raise InputError(f"There is no table sub-{absent[0]}*_{bids.SIGBITS}.tsv in {folder.out}.")
    if not tables:
        raise InputError(f"{folder.out} has no table of any subject: run the level participant first.")
    values = subject_values(tables)
    generator = np.random.default_rng(seed)
    rows = [_row(key, list(of.values()), interval, level, generator) for key, of in values.items()]
    missing = {name: about["sentence"] for name, about in folder.failed().items()}
    facts = common_facts([path for paths in tables.values() for path in paths])
    return Group(rows, list(values.values()), sorted(tables), missing, interval, level, facts)


def common_facts(tables: Sequence[Path]) -> dict[str, Any]:
    """Return what the JSON files beside the tables say alike of how the bits were found."""
    said = [read_json(path.with_suffix(".json")) for path in tables if path.with_suffix(".json").is_file()]
    return {key: said[0][key] for key in FACTS if said and all(one.get(key, "") == said[0].get(key) for one in said)}


def tables_of(out: Path) -> dict[str, list[Path]]:
    """Return the tables of the images by subject."""
    found: dict[str, list[Path]] = {}
    for path in sorted(out.glob(f"sub-*/**/anat/sub-*_{bids.SIGBITS}.tsv")):
        found.setdefault(bids.entities(path.name)["sub"], []).append(path)
    return found


def subject_values(tables: Mapping[str, Sequence[Path]]) -> dict[Key, dict[str, float]]:
    """Return the values of each subject: the mean over its images and slices that have one."""
    found: dict[Key, dict[str, list[float]]] = {}
    for subject, paths in tables.items():
        for line in (line for path in paths for line in read_csv(path, "\t")):
            for measure in MEASURES:
                if line[measure] != NOTHING:
                    key = (line["layer"], line["operator"], line["region"], measure)
                    found.setdefault(key, {}).setdefault(subject, []).append(float(line[measure]))
    return {key: {subject: math.fsum(v) / len(v) for subject, v in of.items()} for key, of in found.items()}


def _row(key: Key, values: list[float], interval: Interval, level: float, generator: np.random.Generator) -> GroupRow:
    low, high = bounds(values, interval, level, generator)
    n, mean = len(values), math.fsum(values) / len(values)
    std = float(np.std(values, ddof=1)) if n > 1 else None
    return GroupRow(*key, n, mean, low, high, std, min(values), max(values))


def bounds(
    values: Sequence[float], interval: Interval, level: float, generator: np.random.Generator
) -> tuple[float | None, float | None]:
    """Return the bounds of the mean; None for fewer than two values, the mean itself where all are the same."""
    if len(values) < 2:
        return None, None
    if interval == "t":
        return student_interval(values, level)
    if min(values) == max(values):
        return values[0], values[0]
    found = stats.bootstrap((values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, rng=generator)
    low, high = found.confidence_interval
    return float(low), float(high)


def write_table(found: Group, out: Path) -> Path:
    """Write the rows as TSV, and a JSON file beside it that explains them."""
    columns = [field.name for field in fields(GroupRow)]
    lines = [{key: NOTHING if value is None else value for key, value in asdict(row).items()} for row in found.rows]
    path = out / TABLE
    write_csv(path, lines, columns, "\t")
    write_json(path.with_suffix(".json"), _about(found))
    return path


def _about(found: Group) -> dict[str, Any]:
    words = found.interval_words
    return {
        "Description": "Mean over the subjects of each layer and region, a line for each measure.",
        "Subjects": found.subjects,
        "Missing": found.missing,
        "Interval": words,
        **found.facts,
        "measure": {"Description": "bits_mean in bits; share_noise and index_change_rate are shares from 0 to 1"},
        "subjects": {"Description": "subjects that have a value: each the mean over its images and slices"},
        "mean": {"Description": "mean over the subjects"},
        "low": {"Description": f"lower bound: {words}"},
        "high": {"Description": f"upper bound: {words}"},
        "std": {"Description": "standard deviation over the subjects, n - 1"},
        "least": {"Description": "smallest value of a subject"},
        "most": {"Description": "largest value of a subject"},
    }
