"""What does a campaign take in a process of its own: peak memory by route, and a whole slice at full width?"""

from collections.abc import Callable
from statistics import median

import torch

from analyses.benchmarks.config import Config
from analyses.benchmarks.peak import Job
from analyses.benchmarks.rows import FULL_WIDTH, MEMORY, STOCK, WHOLE, Row
from analyses.models.demo import INPUT_OPTIONS
from analyses.models.fastsurfer import FastSurferVINN

FULL_SAMPLES = 59
FULL_MEMORY = "16GiB"  # all samples side by side: in chunks, the moments of 71 filters would go through the disk
FULL_SUBJECT = "FastSurferVINN, 71 filters, 79 classes, untrained, 256x256"
MIB = 2**20


def full_width() -> FastSurferVINN:
    """Return the network at the paper's width with weights of a fixed seed, which takes slices as the demo's does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FastSurferVINN().eval()
    network.input_options = dict(INPUT_OPTIONS)  # type: ignore[assignment]
    return network


def memory(config: Config, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return the peak memory of a stock forward and of the campaign by route, on the largest number of threads."""
    count = max(config.threads)
    rows = []
    for route in ("", "exact", "model"):
        progress(f"memory, {route or STOCK}")
        samples = config.samples if route else 1
        mode = "random" if route else ""
        found = config.peak(Job(config.network, config.x, route, mode, samples, count, config.seed))
        row: Row = {"part": MEMORY, "subject": config.subject, "what": WHOLE if route else STOCK, "route": route,
                    "mode": mode, "threads": count, "samples": samples, "layers": found["layers"] or None,
                    "format": "" if route else "channels_last"}  # fmt: skip
        rows.append(row | _once(found["peak"] / MIB, "MiB"))
    base = rows[0]["median"]
    return [rows[0]] + [row | {"baseline": "channels_last", "ratio": row["median"] / base} for row in rows[1:]]


def whole_slice(
    config: Config, progress: Callable[[str], None] = lambda _: None,
    network: str = "analyses.benchmarks.processes:full_width", samples: int = FULL_SAMPLES,
) -> list[Row]:  # fmt: skip
    """Return wall clock and peak memory of a whole campaign at full width: exact, random, every layer, to a folder.

    Stock forwards, as many as samples, run before and after it in processes of their own.
    """
    count = max(config.threads)
    stock = Job(network, config.x, "", "", samples, count)
    found = []
    ours = Job(network, config.x, "exact", "random", samples, count, config.seed, folder=True, memory=FULL_MEMORY)
    for job in (stock, ours, stock):
        progress(f"full width, {samples} samples, {job.route or STOCK}")
        found.append(config.peak(job))
    row: Row = {"part": FULL_WIDTH, "subject": FULL_SUBJECT, "threads": count, "samples": samples}
    before, campaign, after = found
    seconds = [before["seconds"], after["seconds"]]
    rows = [
        {**row, "what": STOCK, "format": "channels_last", "repetitions": 2, "unit": "s", "median": median(seconds),
         "low": min(seconds), "high": max(seconds)},
        {**row, "what": STOCK, "format": "channels_last"} | _once(max(before["peak"], after["peak"]) / MIB, "MiB"),
    ]  # fmt: skip
    about = {**row, "what": WHOLE, "route": "exact", "mode": "random", "layers": campaign["layers"]}
    for base, value, unit in (
        (rows[0], campaign["seconds"], "s"),
        (rows[1], campaign["peak"] / MIB, "MiB"),
    ):
        rows.append(about | _once(value, unit) | {"baseline": "channels_last", "ratio": value / base["median"]})
    return rows


def _once(value: float, unit: str) -> Row:
    return {"repetitions": 1, "unit": unit, "median": value, "low": value, "high": value}
