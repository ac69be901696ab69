"""Which way to be small costs what? A table of all, and Dice against wall clock, coloured by significant bits."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analyses.results_files import table

Rows = Sequence[Mapping[str, str]]
HEAD = (
    "| network | Dice (95 % interval) | 1 | 2 | 3 | minus stock (95 % interval) | parameters (not 0) | MACs, M (not 0) "
    "| executed, M | ms | speed-up (range) | peak, MiB | bits | worst layer | label flips |"
)


def draw(rows: Rows, footer: str) -> Figure:
    """Return Dice against milliseconds of one volume: a point a network, hollow where the emulator cannot see it.

    Those that no other one beats in both are joined.
    """
    figure = Figure((10.0, 6.0), layout="constrained")
    axis = figure.subplots()
    seen, unseen = [r for r in rows if r["bits"]], [r for r in rows if not r["bits"]]
    points = axis.scatter(
        [float(r["ms"]) for r in seen], [float(r["dice"]) for r in seen], c=[float(r["bits"]) for r in seen],
        cmap="cividis", s=60, zorder=3,
    )  # fmt: skip
    figure.colorbar(points, ax=axis, label="significant bits of the output, emulated")
    axis.scatter([float(r["ms"]) for r in unseen], [float(r["dice"]) for r in unseen], facecolors="white",
                 edgecolors="0.3", s=60, zorder=3, label="no bits: not emulated")  # fmt: skip
    for row in rows:
        x, y = float(row["ms"]), float(row["dice"])
        axis.plot([x, x], [float(row["dice_low"]), float(row["dice_high"])], color="0.6", linewidth=0.8, zorder=1)
        axis.annotate(row["network"], (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    front = pareto(rows)
    axis.plot([float(r["ms"]) for r in front], [float(r["dice"]) for r in front], color="#d55e00", linewidth=1,
              zorder=2, label="no other is faster and as good")  # fmt: skip
    axis.set_xlabel("milliseconds for one volume")
    axis.set_ylabel("Dice, mean of classes and volumes, 95 % interval")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(footer, fontsize=7)
    return figure


def pareto(rows: Rows) -> list[Mapping[str, str]]:
    """Return the rows that no other one beats in Dice without taking longer, from the fastest on."""
    front: list[Mapping[str, str]] = []
    for row in sorted(rows, key=lambda r: (float(r["ms"]), -float(r["dice"]))):
        if not front or float(row["dice"]) > float(front[-1]["dice"]):
            front.append(row)
    return front


def markdown(rows: Rows) -> list[str]:
    """Return the table of all networks, from the rows as the CSV has them, and what has no bits and why."""
    lines = table(HEAD, (_cells(row) for row in rows))
    missing = [f"* {row['network']}: no bits, since {row['no_bits']}." for row in rows if row["no_bits"]]
    return [*lines, "", *missing]


def _cells(row: Mapping[str, str]) -> list[str]:
    dice, low, high = (f"{float(row[c]):.3f}" for c in ("dice", "dice_low", "dice_high"))
    by_class = [f"{float(row[f'dice_{k}']):.3f}" if row[f"dice_{k}"] else "" for k in (1, 2, 3)]
    difference, less, more = (f"{float(row[c]):+.3f}" for c in ("difference", "difference_low", "difference_high"))
    macs, dense, made = (f"{float(row[c]) / 1e6:.1f}" for c in ("macs_not_zero", "macs", "macs_executed"))
    speed = [f"{float(row[c]):.2f}" for c in ("speed_up", "speed_up_low", "speed_up_high")]
    bits = f"{float(row['bits']):.1f}" if row["bits"] else ""
    worst = f"{float(row['worst_bits']):.1f} ({row['worst_layer']})" if row["worst_bits"] else ""
    flips = f"{float(row['label_flips']):.2g}" if row["label_flips"] else ""
    return [
        row["network"], f"{dice} ({low} to {high})", *by_class, f"{difference} ({less} to {more})",
        f"{_whole(row['parameters'])} ({_whole(row['parameters_not_zero'])})", f"{dense} ({macs})", made,
        f"{float(row['ms']):.1f}", f"{speed[0]} ({speed[1]} to {speed[2]})", f"{float(row['peak_bytes']) / 2**20:.2f}",
        bits, worst, flips,
    ]  # fmt: skip


def _whole(text: str) -> str:
    return f"{int(float(text)):,}"
