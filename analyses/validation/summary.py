"""What do the subjects say together? Mean and interval of each layer, and of all layers of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from analyses.experiments.counting import Row
from analyses.statistics import bootstrap_interval, never_seen
from analyses.validation.agreement import SCORES, agreement_of, counts, scores
from mcaprobe.agreement import Agreement

Rows = Sequence[Mapping[str, str]]
GROUPS: dict[str, tuple[str, ...]] = {
    "unpooling outputs": ("MaxUnpool2d", "max_unpool2d"),
    "pooling outputs": ("MaxPool2d", "max_pool2d"),
    "convolution outputs": ("Conv2d", "conv2d"),
    "batch norm outputs": ("BatchNorm2d", "batch_norm"),
}
ALL = "all layers"


def layers(rows: Rows) -> Iterator[Row]:
    """Yield a row for each method, criterion and layer, and one for each group of layers, over the subjects."""
    keys = ("method", "criterion")
    for part in _parts(rows, keys):
        about = {key: part[0][key] for key in keys}
        for name, members in (*_groups(part), *_by(part, "layer").items()):
            yield about | {"layer": name} | over_subjects(members, agreement_of) | _thrown_away(members)


def _groups(rows: Rows) -> Iterator[tuple[str, Rows]]:
    yield ALL, rows
    for name, operators in GROUPS.items():
        members = [row for row in rows if row["operator"] in operators]
        if members:
            yield name, members


def _thrown_away(rows: Rows) -> Row:
    """Return the NaNs on stable elements and on elements without digits, and the unstable ones that stay, as shares."""
    nan, silent = (sum(int(row[name]) for row in rows) for name in ("predicted", "predicted_undefined"))
    both, true = (sum(int(row[name]) for row in rows) for name in ("both", "true"))
    return {
        "nan_on_unstable": both / nan if nan else None, "nan_on_undefined": silent / nan if nan else None,
        "nan_on_stable": (nan - both - silent) / nan if nan else None,
        "unstable_missed": (true - both) / true if true else None,
    }  # fmt: skip


def windows(rows: Rows) -> Iterator[Row]:
    """Yield a row for each method and pooling, and one for all poolings, with the ceiling of the precision.

    An ambiguous window that changed in no sample may still change in others: from those that changed in one and in two
    samples follows how many at least were not seen (Chao 1987), and with them how large the precision could be.
    """
    for part in _parts(rows, ("method",)):
        for name, members in ((ALL, part), *_by(part, "layer").items()):
            found = over_subjects(members, agreement_of)
            nan, both, once, twice, flips, caught = (
                sum(int(row[key]) for row in members)
                for key in ("predicted", "both", "predicted_once", "predicted_twice", "flips", "predicted_flips")
            )
            unseen = min(never_seen(once, twice, int(members[0]["samples"])), nan - both)
            ceiling = {"never_seen": unseen, "precision_with_never_seen": (both + unseen) / nan if nan else None,
                       "share_of_flips": caught / flips if flips else None}  # fmt: skip
            yield {"method": part[0]["method"], "layer": name} | found | ceiling


def places(rows: Rows) -> Iterator[Row]:
    """Yield a row for each method, criterion, layer and band of distances, its elements of all subjects together."""
    for part in _parts(rows, ("method", "criterion", "layer", "low", "high", "zone")):
        about = {key: part[0][key] for key in ("method", "criterion", "layer", "low", "high", "zone")}
        found = _sum(agreement_of(row) for row in part)
        yield about | {"subjects": len({row["subject"] for row in part})} | counts(found) | scores(found)


def over_subjects(rows: Rows, read: Callable[[Mapping[str, str]], Agreement]) -> Row:
    """Return the scores of the subjects, each from the sum of its own counts: mean, and 95 % bootstrap interval.

    A subject whose score has nothing below it is left out of that score, and counted.
    """
    each = [_sum(map(read, members)) for members in _by(rows, "subject").values()]
    cells: Row = {"subjects": len(each)} | counts(_sum(each))
    for score in SCORES:
        values = [value for c in each if (value := getattr(c, score)) is not None]
        cells[score] = sum(values) / len(values) if values else None
        if not score.startswith("chance"):
            low, high = bootstrap_interval(values) if len(values) > 1 else (None, None)
            cells |= {f"{score}_low": low, f"{score}_high": high}
    return cells | {"subjects_with_dice": sum(c.dice is not None for c in each)}


def _sum(found: Iterable[Agreement]) -> Agreement:
    return sum(found, Agreement())


def _by(rows: Rows, column: str) -> dict[str, list[Mapping[str, str]]]:
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found


def _parts(rows: Rows, columns: Sequence[str]) -> Iterator[Rows]:
    found: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[c] for c in columns), []).append(row)
    yield from found.values()
