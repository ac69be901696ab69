"""How is a forecast said? What it will take, what n supports, what was measured and what was extrapolated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcaprobe.settings import show_bytes

if TYPE_CHECKING:
    from mcaprobe.forecast import Forecast


def show_seconds(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least two: 90 s, 45 min, 7.5 h, 12 days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def sentences(found: Forecast) -> list[str]:
    """Return the lines of a forecast."""
    from mcaprobe.forecast import MANY_SUBJECTS, MANY_WORKERS

    said = "Theoretical" if found.theoretical else "Predicted"
    who = f"{found.subjects} subject{'s' * (found.subjects > 1)}, n = {found.samples}"
    many = found.workers > 1
    where = f"{found.workers} worker{'s' * many} ({found.executor}), {found.threads} thread{'s' * (found.threads > 1)}"
    share = f" ({show_bytes(found.memory_of_worker)} a worker)" if many else ""
    need = (
        f"p = {found.probability:g} at confidence {found.confidence:g} needs n = {found.samples_needed} samples "
        f"without a failure (General estimator); n = {found.samples} supports p = {found.supported:.3g}"
    )
    how = "the units of a subject go to all workers" if found.spread else "each worker takes whole subjects"
    lines = [
        f"{said} for {who}, on {where}{' each' * many}:",
        f"  time    {show_seconds(found.seconds)}" + (f"; {how}" if many else ""),
        f"  memory  {show_bytes(found.memory)}{share}",
        f"  disk    {show_bytes(found.disk)}, at most {show_bytes(found.disk_at_most)} while it runs",
        f"  n       {need}",
        f"  {MANY_SUBJECTS} subjects on {MANY_WORKERS} such workers: {show_seconds(found.seconds_of_thousand)}",
    ]
    if found.subjects > 1:
        lines.insert(2, f"          one subject: {show_seconds(found.seconds_of_subject)}")
    return [
        *lines, "Measured:", *(f"  {line}" for line in found.measured), "Extrapolated:",
        *(f"  {line}" for line in found.extrapolated),
    ]  # fmt: skip
