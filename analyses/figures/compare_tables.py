"""What does each way to be small cost, in tables: all of them for the page, a short one for the README."""

from collections.abc import Mapping, Sequence

from analyses.compress.counting import trade_off
from analyses.experiments.comparison.combined import combined, stock_of, work
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
    stock = stock_of(rows)
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
    stock = stock_of(rows)
    head = " ".join([SHORT, *(f"speed-up, {n} thread{'s' * (n > 1)} |" for n in counts)])
    return table(head, (
        [row["network"], _within(row, "dice", ".3f"), _within(row, "difference", "+.4f"), _whole(row["parameters"]),
         f"{100 * work(row, stock):.1f} %", _within(row, "bits", ".2f"),
         *(_within(clock.get((row["network"], n), {}), "speed_up", ".2f") for n in counts)]
        for row in rows
    ))  # fmt: skip


def _within(row: Row, name: str, spec: str) -> str:
    """Return a value and its low and high in brackets, where it has these; nothing where there is no value."""
    ends = (row.get(f"{name}_{end}") or row.get(end) for end in ("low", "high"))
    value, low, high = (format(float(text), spec) if text else "" for text in (row.get(name), *ends))
    return f"{value} ({low} to {high})" if low else value


def _accuracy(row: Row, stock: Row) -> list[str]:
    macs, dense = (f"{float(row[c]) / 1e6:.1f}" for c in ("macs_not_zero", "macs"))
    made = float(row["macs"]) * float(row["executed_share"]) / 1e6
    return [
        row["network"], _within(row, "dice", ".3f"), _within(row, "difference", "+.4f"),
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
    return [
        row["network"], row["threads"], f"{float(row['ms']):.1f}", _within(row, "speed_up", ".2f"),
        row["format"], f"{float(row['peak_bytes']) / 2**20:.1f}",
    ]  # fmt: skip


def _digits(row: Row) -> list[str]:
    flips = [f"{float(row[c]):.2g}" if row[c] else "" for c in ("label_flips", "pool_flips")]
    return [
        row["network"], _within(row, "bits", ".2f"), _within(row, "bits_where_image", ".2f"), row["worst_layer"],
        f"{float(row['worst_bits']):.2f}", *flips,
    ]  # fmt: skip


def _combination(row: Mapping[str, float | str]) -> list[str]:
    numbers = (f"{row[c]:.2f}" for c in ("alone", "nans", "product", "together", "work_product", "work"))
    return [str(row["network"]), str(row["threads"]), *numbers]


def _answer(row: Row) -> list[str]:
    words = [row[c] for c in ("question", "network", "against", "threads", "quantity")]
    return [*words, _within(row, "value", ".3f"), row["n"]]


def said(row: Row) -> str:
    """Return an answer's value and interval in a sentence, differences with their sign."""
    signed = "+.4f" if row["quantity"] == "Dice" else "+.2f" if row["quantity"].startswith("bits") else ".2f"
    return _within(row, "value", signed)


def _by_class(rows: Rows, dice: Rows) -> list[str]:
    classes = list(dict.fromkeys(row["class"] for row in dice))[1:]
    means = {(row["network"], k): row[f"dice_{i}"] for row in rows for i, k in enumerate(classes, 1)}
    head = f"| network | {' | '.join(classes)} |"
    each = {row["network"]: [means[row["network"], k] for k in classes] for row in rows}
    return table(head, ([name, *(f"{float(v):.3f}" if v else "" for v in values)] for name, values in each.items()))


def _whole(text: str) -> str:
    return f"{int(float(text)):,}"
