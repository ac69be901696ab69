"""Do the NaNs land where the digits are lost? The tables of `validate`, from its rows."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from analyses.methods import STOCK
from analyses.results_files import table
from analyses.validation.summary import ALL, GROUPS

Rows = Sequence[Mapping[str, str]]
HEAD_LAYERS = (
    "| tensor | criterion | NaNs of | NaN | unstable | Dice | by chance | precision | recall | MCC | NaN on stable | "
    "NaN on elements without digits | unstable, not NaN |"
)
HEAD_WINDOWS = (
    "| pooling | NaNs of | ambiguous | index changed | Dice | by chance | precision | at most, with those never seen | "
    "recall | MCC | share of all flips |"
)
HEAD_NETWORKS = (
    "| way | skipped, mean over layers | of the MACs | executed | labels changed | in the brain | Dice, torch | Dice |"
)
HEAD_DIGITS = (
    "| way | region | bits of the logits | logits without a digit | labels that flip | decoder: bits | noise | "
    "sometimes NaN | always NaN |"
)
BRAIN, BACKGROUND = "brain", "background"
OUTPUT, LABELS = ":output", ":output.labels"


def markdown(layers: Rows, windows: Rows, networks: Rows, digits: Rows) -> list[str]:
    """Return the tables: windows, groups of layers and unpoolings, ways, digits of the ways.

    Args:
        layers, windows: Summaries over the subjects.
        networks, digits: Rows of the subjects; no digits where none were probed.
    """
    lines = ["## Windows of poolings", "", *table(HEAD_WINDOWS, _windows(windows)), ""]
    lines += ["## Elements of layers", "", *table(HEAD_LAYERS, _layers(layers)), ""]
    lines += ["## The paper's poolings, an oracle, and controls", "", *table(HEAD_NETWORKS, _networks(networks)), ""]
    if digits:
        lines += ["## Digits of the networks with NaNs", "", *table(HEAD_DIGITS, _digits(digits)), ""]
    return lines[:-1]


def _windows(rows: Rows) -> Iterator[Sequence[str]]:
    for row in rows:
        yield (
            _name(row["layer"], "all poolings"), row["method"], _share(row, "predicted"), _share(row, "true"),
            _interval(row, "dice"), _two(row["chance_dice"]), _interval(row, "precision"),
            _three(row["precision_with_never_seen"]), _interval(row, "recall"), _two(row["mcc"]),
            _percent(row["share_of_flips"]),
        )  # fmt: skip


def _layers(rows: Rows) -> Iterator[Sequence[str]]:
    for row in rows:
        if row["layer"] not in (ALL, *GROUPS) and "unpool" not in row["layer"]:
            continue
        yield (
            row["layer"], row["criterion"], row["method"], _share(row, "predicted"), _share(row, "true"),
            _interval(row, "dice"), _two(row["chance_dice"]), _interval(row, "precision"), _interval(row, "recall"),
            _two(row["mcc"]), _percent(row["nan_on_stable"]), _percent(row["nan_on_undefined"]),
            _percent(row["unstable_missed"]),
        )  # fmt: skip


def _networks(rows: Rows) -> Iterator[Sequence[str]]:
    for method in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == method]
        scored = [row for row in part if row.get("dice")]
        yield (
            method, _percent(mean_of(part, "mean_over_layers")), _percent(_over(part, "spared", "macs")),
            _percent(_over(part, "executed", "macs")), _changed(part, "labels_changed", "labels"),
            _changed(part, "labels_changed_brain", "labels_brain"),
            _four(mean_of(scored, "dice_stock")) if scored else "", _four(mean_of(scored, "dice")) if scored else "",
        )  # fmt: skip


def _digits(rows: Rows) -> Iterator[Sequence[str]]:
    """The decoder is the mean over the outputs of the convolutions behind the first unpooling."""
    behind = decoder(rows)
    for method in dict.fromkeys(row["method"] for row in rows):
        for region in (BRAIN, BACKGROUND):
            part = [row for row in rows if (row["method"], row["region"]) == (method, region)]
            inside = [row for row in part if row["layer"] in behind and row["operator"] == "Conv2d"]
            output = [row for row in part if row["layer"] == output_of(rows)]
            labels = [row for row in part if row["layer"] == LABELS]
            yield (
                method, region, _two(mean_of(output, "bits_mean")), _percent(mean_of(output, "share_noise")),
                _percent(mean_of(labels, "flip_rate")), _two(mean_of(inside, "bits_mean")),
                _percent(mean_of(inside, "share_noise")), _percent(mean_of(inside, "share_sometimes_nan")),
                _percent(mean_of(inside, "share_always_nan")),
            )  # fmt: skip


def output_of(rows: Rows) -> str:
    """Return the layer whose output is the network's in the stock network: the last floating one."""
    return [row["layer"] for row in rows if row["method"] == STOCK and not row["flip_rate"]][-1]


def decoder(rows: Rows) -> set[str]:
    """Return the layers from the first unpooling on."""
    names = list(dict.fromkeys(row["layer"] for row in rows if row["method"] == STOCK))
    first = next((i for i, name in enumerate(names) if "unpool" in name), len(names))
    return set(names[first:])


def _name(layer: str, every: str) -> str:
    return every if layer == ALL else layer


def mean_of(rows: Rows, column: str) -> float | None:
    """Return the mean of a column over the rows that have it, None where none has."""
    values = [float(row[column]) for row in rows if row[column]]
    return fmean(values) if values else None


def _over(rows: Rows, part: str, whole: str) -> float:
    return sum(int(row[part]) for row in rows) / sum(int(row[whole]) for row in rows)


def _changed(rows: Rows, part: str, whole: str) -> str:
    return f"{sum(int(row[part]) for row in rows):,} of {sum(int(row[whole]) for row in rows):,}"


def _share(row: Mapping[str, str], column: str) -> str:
    return _percent(int(row[column]) / int(row["elements"]))


def _interval(row: Mapping[str, str], column: str) -> str:
    if not row[column]:
        return ""
    if not row[f"{column}_low"]:
        return _three(row[column])
    return f"{_three(row[column])} ({_three(row[f'{column}_low'])} to {_three(row[f'{column}_high'])})"


def _percent(value: float | str | None) -> str:
    return "" if value in (None, "") else f"{100 * float(value or 0):.3g} %"


def _two(value: float | str | None) -> str:
    return "" if value in (None, "") else f"{float(value or 0):.2f}"


def _three(value: float | str | None) -> str:
    return "" if value in (None, "") else f"{float(value or 0):.3f}"


def _four(value: float | str | None) -> str:
    return "" if value in (None, "") else f"{float(value or 0):.4f}"
