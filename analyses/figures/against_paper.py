"""The table "paper against here" of the networks for brains, from their rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analyses.experiments.counting import BRAIN, TOTAL, WHOLE
from analyses.figures.brains import STOCK, name_of

Rows = Sequence[Mapping[str, str]]
HEAD = (
    "| network | NaN | skipped, paper | skipped, here | whole volume | windows | MACs | executed MACs | score, torch | "
    "score, here | labels that differ |"
)


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the paper, and what the paper says of it: sections 6.2 and 6.3.

    Attributes:
        name: In words.
        score: Column of the slices' score, its unit in words, and the digits that are shown.
        paper: Skipped convolutions, mean over layers, by pooling and threshold.
    """

    name: str
    score: tuple[str, str, int]
    paper: Mapping[tuple[str, float], float]


FASTSURFER = Network("FastSurferVINN", ("dice", "Dice", 4), {
    ("conservative", 1.0): 0.0612, ("conservative", 0.8): 0.1095, ("conservative", 0.5): 0.2659,
    ("conservative", 0.4): 0.3195, ("aggressive", 1.0): 0.3324, ("aggressive", 0.5): 0.4419,
})  # fmt: skip
FONDUE = Network("FONDUE", ("psnr", "PSNR, dB", 2), {
    ("conservative", 1.0): 0.0, ("conservative", 0.8): 0.2685, ("conservative", 0.5): 0.3397,
    ("conservative", 0.4): 0.3377,
})  # fmt: skip


def markdown(parts: Sequence[tuple[Network, Rows, Rows]]) -> list[str]:
    """Return a table with a row for each network and method.

    Args:
        parts: A network, and the rows of its tables `layers` and `slices`.
    """
    lines = [HEAD, "| " + " | ".join(["---"] * (HEAD.count("|") - 1)) + " |"]
    for network, layers, slices in parts:
        lines += _lines(network, layers, slices)
    return [*lines, "", _about(parts)]


def _about(parts: Sequence[tuple[Network, Rows, Rows]]) -> str:
    subjects = len({row["subject"] for _, layers, _ in parts for row in layers})
    return (
        f"n = {subjects} brains. Skipped: the share of a layer's windows that are skipped, mean over the layers (the "
        "paper's figure), on slices with brain and over the whole volume; windows, MACs: the share of all windows, and "
        "of their multiply-accumulates, that is skipped on slices with brain; executed: what the kernels made of them, "
        "windows of constant background being filled. Score: mean over slices of "
        f"{' and '.join(network.score[1].split(',')[0] for network, _, _ in parts)}, the same slices on both sides. "
        "The paper's networks have other weights, its scores are curves."
    )


def _lines(network: Network, layers: Rows, slices: Rows) -> Iterator[str]:
    column, unit, digits = network.score
    totals = [row for row in layers if row["layer"] == TOTAL]
    torch = {(row["subject"], row["slice"]): row for row in slices if row["method"] == STOCK}
    for method in dict.fromkeys(map(name_of, totals)):
        brain, whole = (_of(totals, method, scope) for scope in (BRAIN, WHOLE))
        own = [row for row in slices if row["method"] != STOCK and name_of(row) == method]
        paper = network.paper.get((brain[0]["pooling"], float(brain[0]["threshold"])))
        if brain[0]["uniform"] == "True":
            paper = None
        pairs = [(torch[row["subject"], row["slice"]][column], row[column]) for row in own]
        theirs, ours = zip(*((float(a), float(b)) for a, b in pairs if "nan" not in (a, b)), strict=True)
        changed = [int(row["labels_changed"]) for row in own if row.get("labels_changed")]
        cells = [
            network.name, method, "" if paper is None else f"{paper:.1%}", _mean(brain, "mean_over_layers"),
            _mean(whole, "mean_over_layers") if whole else "", _mean(brain, "window_share"), _mean(brain, "mac_share"),
            _mean(brain, "executed_share"), f"{unit.split(',')[0]} {fmean(theirs):.{digits}f}",
            f"{fmean(ours):.{digits}f}", f"{sum(changed):,}" if changed else "",
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def _of(totals: Rows, method: str, scope: str) -> Rows:
    return [row for row in totals if name_of(row) == method and row["scope"] == scope]


def _mean(rows: Rows, column: str) -> str:
    return f"{fmean(float(row[column]) for row in rows):.1%}"
