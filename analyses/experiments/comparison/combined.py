"""Do savings multiply? What two ways gain together, against the product of what each gains alone."""

from collections.abc import Iterator, Mapping, Sequence

from analyses.experiments.comparison.networks import CONSERVATIVE, STOCK, UNIFORM
from mcaprobe.errors import InputError

Row = Mapping[str, str]
SPEEDS = ("speed_up", "speed_up_low", "speed_up_high")
BESIDES = {"instance norm": "plain U-Net, instance norm"}  # whose rows alone have another name


def stock_of(rows: Sequence[Row]) -> Row:
    """Return the row that all others are held against; InputError where it is missing."""
    for row in rows:
        if row["network"] == STOCK:
            return row
    raise InputError(f"Expected a row of {STOCK!r}, which all others are held against: run it, too.")


def work(row: Row, stock: Row) -> float:
    """Return the products that the kernels make, as a share of stock's; those of kernels of zeros count as made."""
    return float(row["macs"]) * float(row["executed_share"]) / float(stock["macs"])


def combined(rows: Sequence[Row], times: Sequence[Row]) -> Iterator[dict[str, float | str]]:
    """Yield for each combination with NaN and each number of threads the speed-ups and the work, all against stock.

    Returns:
        network, threads, `alone` and `nans`: speed-ups of either; `product`, `together`, each with the lowest and the
        highest of the repetitions (of a product: the products of these); `work_product`, `work`.
    """
    by_name = {row["network"]: row for row in rows}
    clock = {(row["network"], row["threads"]): [float(row[name]) for name in SPEEDS] for row in times}
    stock = stock_of(rows)
    for name, row in by_name.items():
        first, plus, second = name.rpartition(" + ")
        first = BESIDES.get(first, first)
        if not plus or second not in (CONSERVATIVE, UNIFORM) or not {first, second} <= by_name.keys():
            continue
        for threads in dict.fromkeys(t["threads"] for t in times):
            if any((n, threads) not in clock for n in (name, first, second)):
                continue
            alone, nans, both = (clock[n, threads] for n in (first, second, name))
            product = [a * b for a, b in zip(alone, nans, strict=True)]
            yield {
                "network": name, "threads": threads, "alone": alone[0], "nans": nans[0], "product": product[0],
                "product_low": product[1], "product_high": product[2], "together": both[0], "together_low": both[1],
                "together_high": both[2], "work": work(row, stock),
                "work_product": work(by_name[first], stock) * work(by_name[second], stock),
            }  # fmt: skip
