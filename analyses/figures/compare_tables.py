"""What does each way to be small cost, in tables: all of them for the page, a short one for the README."""

from collections.abc import Mapping, Sequence

from analyses.compress.counting import trade_off
from analyses.experiments.comparison.combined import combined, work
from analyses.experiments.comparison.networks import STOCK
from analyses.results_files import table

Row = Mapping[str, str]
Rows = Sequence[Row]
ACCURACY = (
    "| network | Dice (95 % interval) | minus stock (95 % interval) | parameters (not 0) | MACs, M (not 0) "
    "| executed, M | of stock's | windows skipped | PT score |"
)
CLOCK = "| network | threads | ms | speed-up (range) | format | peak, MiB |"
DIGITS = (
    "| network | bits (95 % interval) | where the image is not 0 | worst layer | its bits | label flips | pool flips |"
)
COMBINED = (
    "| combination | threads | one alone | NaN alone | product | together | MACs of stock's: product | together |"
)
ANSWERS = "| question | network | against | threads | quantity | value | n |"
PT_SCORE = (
    "PT score (E2ENet, A.7.4): Dice over the best, plus half of the fewest parameters over these and half of the "
    "fewest products over these; of parameters and kernels that are not 0, and of products that are made."
)
QUESTIONS = (
    "Dice and bits: means of paired differences (over subjects; over probed inputs) with Student's 95 % interval. "
    "Speed-ups: with the lowest and highest of the repetitions; of a product: the products of these."
)
SHORT = "| network | Dice (95 %) | minus stock, paired (95 %) | parameters | products made, of stock's | bits (95 %) |"


def markdown(rows: Rows, times: Rows, dice: Rows, answered: Rows) -> list[str]:
    """Return the tables of all networks, from the rows as the CSVs have them, and what has no bits and why.

    Args:
        answered: `comparison.answers`, as a CSV has them.
    """
    missing = [f"* {row['network']}: no bits, since {row['no_bits']}." for row in rows if row["no_bits"]]
    stock = next(row for row in rows if row["network"] == STOCK)
    return [
        "## What is right, and what is multiplied", "",
        *table(ACCURACY, ([*_accuracy(row, stock), score] for row, score in zip(rows, trade_offs(rows), strict=True))),
        "", PT_SCORE, "", "## Wall clock", "", *table(CLOCK, (_clock(row) for row in times)),
        "", "## Significant bits and decisions", "", *table(DIGITS, (_digits(row) for row in rows if row["bits"])),
        "", *missing, "", "## Do the savings multiply?", "",
        *table(COMBINED, (_combination(row) for row in combined(rows, times))),
        "", "## Dice by class, mean over subjects", "", *_by_class(rows, dice),
        "", "## The questions", "", QUESTIONS, "", *table(ANSWERS, (_answer(row) for row in answered)),
    ]  # fmt: skip


def short(rows: Rows, times: Rows) -> list[str]:
    """Return one table of what matters most, a row for each network."""
    counts = sorted({int(row["threads"]) for row in times})
    clock = {(row["network"], int(row["threads"])): row for row in times}
    stock = next(row for row in rows if row["network"] == STOCK)
    head = " ".join([SHORT, *(f"speed-up, {n} thread{'s' * (n > 1)} |" for n in counts)])
    times_of = {row["network"]: [_range(clock.get((row["network"], n))) for n in counts] for row in rows}
    return table(head, ([*_short(row, stock), *times_of[row["network"]]] for row in rows))


def _short(row: Row, stock: Row) -> list[str]:
    name, dice, difference, parameters, *_ = _accuracy(row, stock)
    bits = _digits(row)[1] if row["bits"] else ""
    return [name, dice, difference, parameters.split(" ")[0], f"{100 * work(row, stock):.1f} %", bits]


def _range(row: Row | None) -> str:
    return _clock(row)[3] if row else ""


def _accuracy(row: Row, stock: Row) -> list[str]:
    dice, low, high = (f"{float(row[c]):.3f}" for c in ("dice", "dice_low", "dice_high"))
    difference, less, more = (f"{float(row[c]):+.4f}" for c in ("difference", "difference_low", "difference_high"))
    macs, dense = (f"{float(row[c]) / 1e6:.1f}" for c in ("macs_not_zero", "macs"))
    made = float(row["macs"]) * float(row["executed_share"]) / 1e6
    return [
        row["network"], f"{dice} ({low} to {high})", f"{difference} ({less} to {more})",
        f"{_whole(row['parameters'])} ({_whole(row['parameters_not_zero'])})", f"{dense} ({macs})", f"{made:.1f}",
        f"{work(row, stock):.2f}", f"{100 * float(row['windows_skipped']):.1f} %",
    ]  # fmt: skip


def trade_offs(rows: Rows) -> list[str]:
    """Return the PT scores; nothing where a network found nothing, since a score needs a Dice."""
    dice = [float(row["dice"]) for row in rows]
    if min(dice) <= 0:
        return [""] * len(rows)
    parameters = [float(row["parameters_not_zero"]) for row in rows]
    made = [float(row["macs_not_zero"]) * float(row["executed_share"]) for row in rows]
    return [f"{score:.3f}" for score in trade_off(dice, parameters, made)]


def _clock(row: Row) -> list[str]:
    speed = [f"{float(row[c]):.2f}" for c in ("speed_up", "speed_up_low", "speed_up_high")]
    return [
        row["network"], row["threads"], f"{float(row['ms']):.1f}", f"{speed[0]} ({speed[1]} to {speed[2]})",
        row["format"], f"{float(row['peak_bytes']) / 2**20:.1f}",
    ]  # fmt: skip


def _digits(row: Row) -> list[str]:
    bits, low, high = (f"{float(row[c]):.2f}" for c in ("bits", "bits_low", "bits_high"))
    inside, less, more = (f"{float(row[f'bits_where_image{c}']):.2f}" for c in ("", "_low", "_high"))
    flips = [f"{float(row[c]):.2g}" if row[c] else "" for c in ("label_flips", "pool_flips")]
    return [
        row["network"], f"{bits} ({low} to {high})", f"{inside} ({less} to {more})", row["worst_layer"],
        f"{float(row['worst_bits']):.2f}", *flips,
    ]  # fmt: skip


def _combination(row: Mapping[str, float | str]) -> list[str]:
    numbers = (f"{row[c]:.2f}" for c in ("alone", "nans", "product", "together", "work_product", "work"))
    return [str(row["network"]), str(row["threads"]), *numbers]


def _answer(row: Row) -> list[str]:
    value, low, high = (f"{float(row[c]):.3f}" if row[c] else "" for c in ("value", "low", "high"))
    words = [row[c] for c in ("question", "network", "against", "threads", "quantity")]
    return [*words, f"{value} ({low} to {high})" if low else value, row["n"]]


def said(row: Row) -> str:
    """Return an answer's value and interval in a sentence, differences with their sign."""
    signed = "+.4f" if row["quantity"] == "Dice" else "+.2f" if row["quantity"].startswith("bits") else ".2f"
    value, low, high = (format(float(row[c]), signed) if row[c] else "" for c in ("value", "low", "high"))
    return f"{value} ({low} to {high})" if low else value


def _by_class(rows: Rows, dice: Rows) -> list[str]:
    classes = list(dict.fromkeys(row["class"] for row in dice))[1:]
    means = {(row["network"], k): row[f"dice_{i}"] for row in rows for i, k in enumerate(classes, 1)}
    head = f"| network | {' | '.join(classes)} |"
    each = {row["network"]: [means[row["network"], k] for k in classes] for row in rows}
    return table(head, ([name, *(f"{float(v):.3f}" if v else "" for v in values)] for name, values in each.items()))


def _whole(text: str) -> str:
    return f"{int(float(text)):,}"
