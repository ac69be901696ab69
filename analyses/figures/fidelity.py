"""The fidelity rows as the README's table: one line for each operator, one for each network, one for the twin."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
HEADER = (
    "| against | n | std ratio, `random` | std ratio, `nearness` | bits difference (r, n) | within half a bit (r, n) |",
    "| --- | --- | --- | --- | --- | --- |",
)


def markdown(rows: Rows, route: str) -> list[str]:
    """Return the lines of a route's table; a ratio has its 95 % interval, a range is over layers or shapes."""
    judged = [r for r in rows if str(r["judged"]) == "True" and r["route"] == route]
    lines = list(HEADER)
    networks = [n for n in dict.fromkeys(r["operator"] for r in judged) if str(n).startswith("unet")]
    for name in dict.fromkeys(r["operator"] for r in judged if r["comparison"] == "verrou"):
        here = [r for r in judged if r["operator"] == name and r["rms_ratio"] not in ("", None)]
        if name in networks:
            outputs = len({r["output"] for r in here})
            lines.append(_line(f"{name}, {outputs} layers before the first unpooling", here, ranged=True))
        else:
            for output in dict.fromkeys(r["output"] for r in here):
                label = name if output == "y" and "pool" not in name else f"{name}, {output}"
                lines.append(_line(label, [r for r in here if r["output"] == output], ranged=False))
    twin = [r for r in judged if r["comparison"] == "twin"]
    if twin:
        shapes = len({r["operator"] for r in twin})
        lines.append(_line(f"multiply-add twin, {shapes} random shapes", twin, ranged=True))
    return lines + _exact_and_changes(judged)


def _line(label: str, rows: Rows, ranged: bool) -> str:
    cells = []
    for column in ("rms_ratio", "bits_difference", "within_half_bit"):
        for mode in ("random", "nearness"):
            values = [float(r[column]) for r in rows if r["mode"] == mode]
            row = next(r for r in rows if r["mode"] == mode)
            if ranged:
                cells.append(f"{min(values):.2f} to {max(values):.2f}")
            elif column == "rms_ratio":
                cells.append(f"{values[0]:.2f} ({float(row['low']):.2f} to {float(row['high']):.2f})")
            else:
                cells.append(f"{values[0]:.2f}")
    n = f"{rows[0]['n']} / {rows[0]['reference_n']}"
    return f"| {label} | {n} | {cells[0]} | {cells[1]} | {cells[2]}, {cells[3]} | {cells[4]}, {cells[5]} |"


def _exact_and_changes(judged: Rows) -> list[str]:
    changes = [r for r in judged if r["change_rate"] not in ("", None) and float(r["change_rate_reference"])]
    ratios = [float(r["change_ratio"]) for r in changes]
    exact = [r for r in judged if r["mode"] == "random" and r["exact_reference"] not in ("", None)
             and float(r["exact_reference"]) and r["comparison"] == "verrou"]  # fmt: skip
    agreement = _range(float(r["exact_agreement"]) for r in exact)
    missed = [r for r in judged if str(r["met"]) != "True"]
    return [
        "",
        f"Pool-index change rates over Verrou's: {_range(ratios)} ({len(ratios)} poolings and modes that flip at all). "
        f"Elements exact under Verrou's `random` and exact here: agreement {agreement} "
        f"({len(exact)} outputs). Judged rows: {len(judged)}, missed: {len(missed)}.",
    ]


def _range(values: Iterable[float]) -> str:
    found = list(values)
    return f"{min(found):.3f} to {max(found):.3f}" if found else "none"
