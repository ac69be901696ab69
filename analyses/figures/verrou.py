"""How near is the emulator to Verrou on the demo's network? What the README says, from the rows of two comparisons."""

import statistics
from collections.abc import Mapping, Sequence

Rows = Sequence[Mapping[str, str]]
FEW = 100  # unstable elements in A and B together, below which an agreement says nothing


def sentence(against_verrou: Rows, against_itself: Rows, seconds: tuple[float, float]) -> str:
    """Return what was found over whole layers.

    Args:
        against_verrou: Of `mcaprobe compare`, A under Verrou, B emulated.
        against_itself: Both emulated, with two seeds.
        seconds: Wall clock of the campaign under Verrou and of the emulated one.
    """
    parts = [_part(against_verrou), _part(against_itself)]
    texts = [
        f"median over {p['layers']} layers of the ratio of standard deviations {p['std']}; over the {p['marked']} "
        f"layers with unstable elements median Dice {p['dice']}, precision {p['precision']}, recall {p['recall']}; "
        f"mean bits on the brain differ by {p['bits']} on average"
        for p in parts
    ]
    a, b = seconds
    return (
        f"Verrou against the emulator: {texts[0]}. The emulator against itself with another seed: {texts[1]}. "
        f"Wall clock {a / 60:.1f} min against {b:.1f} s, a ratio of {a / b:.0f}."
    )


def _part(rows: Rows) -> dict[str, str]:
    whole = [row for row in rows if row["region"] == "all"]
    ratios = [float(row["std_ratio"]) for row in whole if row["std_ratio"]]
    marked = [row for row in whole if row["dice"] and _either(row) >= FEW]
    brain = [row for row in rows if row["region"] == "brain" and row["bits_mean_a"] and row["bits_mean_b"]]
    bits = statistics.fmean(float(row["bits_mean_a"]) - float(row["bits_mean_b"]) for row in brain)
    scores = {
        name: f"{statistics.median(float(row[name]) for row in marked):.2f}" for name in ("dice", "precision", "recall")
    }
    about = {"layers": str(len(ratios)), "std": f"{statistics.median(ratios):.3f}", "marked": str(len(marked))}
    return about | scores | {"bits": f"{bits:.3f}"}


def _either(row: Mapping[str, str]) -> int:
    return int(row["unstable_a"]) + int(row["unstable_b"]) - int(row["unstable_both"])
