"""Do savings multiply? What two ways gain together, against the product of what each gains alone."""

from collections.abc import Iterator, Mapping, Sequence

from analyses.experiments.comparison.networks import CONSERVATIVE, STOCK, UNIFORM

Row = Mapping[str, str]
BESIDES = {"instance norm": "plain U-Net, instance norm"}  # whose rows alone have another name


def work(row: Row, stock: Row) -> float:
    """Return the products that the kernels make, as a share of stock's; those of kernels of zeros count as made."""
    return float(row["macs"]) * float(row["executed_share"]) / float(stock["macs"])


def combined(rows: Sequence[Row], times: Sequence[Row]) -> Iterator[dict[str, float | str]]:
    """Yield for each combination with NaN and each number of threads the speed-ups and the work, all against stock.

    Returns:
        network, threads, `alone` and `nans`: speed-ups of either; `product`, `together`; `work_product`, `work`.
    """
    by_name = {row["network"]: row for row in rows}
    clock = {(row["network"], row["threads"]): float(row["speed_up"]) for row in times}
    stock = by_name[STOCK]
    for name, row in by_name.items():
        first, plus, second = name.rpartition(" + ")
        first = BESIDES.get(first, first)
        if not plus or second not in (CONSERVATIVE, UNIFORM) or not {first, second} <= by_name.keys():
            continue
        for threads in dict.fromkeys(t["threads"] for t in times):
            if any((n, threads) not in clock for n in (name, first, second)):
                continue
            alone, nans = clock[first, threads], clock[second, threads]
            yield {
                "network": name, "threads": threads, "alone": alone, "nans": nans, "product": alone * nans,
                "together": clock[name, threads], "work": work(row, stock),
                "work_product": work(by_name[first], stock) * work(by_name[second], stock),
            }  # fmt: skip
