"""How long does each phase of a short campaign take, and how large is what it leaves? It is really run, and timed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcaprobe.campaign import Campaign
from mcaprobe.executors import Engine
from mcaprobe.folders import remove
from mcaprobe.observer import Observer
from mcaprobe.outline import BY_CHUNKS, BY_PIECES, DIRECT, Sketch
from mcaprobe.planning import Needs, Survey
from mcaprobe.products import Products
from mcaprobe.result import Result
from mcaprobe.runs_in_folder import CHUNKS, InFolder, finished, sizes
from mcaprobe.runs_of_volumes import PARTS, OfVolume
from mcaprobe.whole import Whole

SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class Short:
    """What one short campaign took.

    Attributes:
        samples: Perturbed runs.
        rounds: Passes one after another of a unit.
        units: How many ran, one after another.
        unit: Seconds of one.
        begin: Seconds before the units: the survey, the plan, the manifest.
        merged: Blocks or pieces that were put together; 0 where the only unit wrote the products itself.
        join: Seconds after the units: merging, tables, maps, pictures; 0 where these were left out.
        disk: Bytes of the finished run directory; 0 likewise.
        parts: Bytes of the chunks or pieces, which are there until it is finished.
        kept: Bytes of the activations that are kept of each run, the unperturbed one among them; part of `disk`.
    """

    samples: int
    rounds: int
    units: int
    unit: float
    begin: float
    merged: int
    join: float
    disk: int
    parts: int
    kept: int = 0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.begin + self.units * self.unit + self.join


class Enough(Exception):
    """The units are timed; the rest of the short campaign was not asked for."""


class TimedFolder(InFolder):
    """A campaign of one input whose phases are timed.

    Attributes:
        way: DIRECT or BY_CHUNKS; a model that cannot run its samples side by side ends up by chunks.
    """

    def __init__(self, campaign: Campaign, out: Path, way: str, joined: bool) -> None:
        super().__init__(campaign, out, Observer())
        self.way, self.joined = way, joined
        self.units, self.merged, self.bytes_of_parts = 1, 0, 0
        self.units_began = self.units_done = 0.0

    def _direct(self, products: Products) -> bool:
        if self.way != DIRECT:
            return False
        self.units_began = time.perf_counter()
        if not super()._direct(products):
            self.way = BY_CHUNKS
            return False
        self._ended()
        return True

    def _chunks(self, seen: Survey, missing: list[int], needs: Needs) -> Needs:
        self.units_began, self.merged = time.perf_counter(), len(missing)
        found = super()._chunks(seen, missing, needs)
        self.units = len(finished(self.out / CHUNKS))
        self._ended()
        self.bytes_of_parts = sum(sizes(self.out, self.out / CHUNKS).values())
        return found

    def _ended(self) -> None:
        self.units_done = time.perf_counter()
        if not self.joined:
            raise Enough


class TimedVolume(OfVolume):
    """A campaign of a few pieces whose phases are timed; that the volume is stored counts as beginning."""

    def __init__(self, campaign: Campaign, out: Path, whole: Whole, joined: bool) -> None:
        super().__init__(campaign, out, Observer(), Engine(), whole)
        self.way, self.joined = BY_PIECES, joined
        self.units = self.merged = len(whole.numbers)
        self.bytes_of_parts = 0
        self.units_began = self.units_done = 0.0

    def _pieces(self, seen: Survey) -> None:
        start = time.perf_counter()
        self.whole.store(self.out / "stored-twice.safetensors")  # `_pieces` stores it too: as long again
        stored = time.perf_counter() - start
        remove(self.out / "stored-twice.safetensors")
        self.units_began = time.perf_counter() + stored
        super()._pieces(seen)
        self.units_done = time.perf_counter()
        self.bytes_of_parts = sum(sizes(self.out, self.out / PARTS).values())
        if not self.joined:
            raise Enough


def run_short(campaign: Campaign, sketch: Sketch, way: str, out: Path, joined: bool) -> tuple[Short, str]:
    """Run a short campaign in a folder that is removed again; return what it took and its way in the end.

    Args:
        campaign: The planned one.
        joined: Whether what follows the units is run as well.
    """
    settings, x = sketch.settings, campaign.input
    run: TimedFolder | TimedVolume
    out.mkdir(parents=True)
    start = time.perf_counter()
    if x.whole is not None:
        middle = max(0, len(x.whole.numbers) // 2 - sketch.pieces + 1)
        whole = replace(x.whole, numbers=x.whole.numbers[middle : middle + sketch.pieces])
        campaign = replace(campaign, settings=settings, input=replace(x, whole=whole))
        run = TimedVolume(campaign, out, whole, joined)
    else:
        run = TimedFolder(replace(campaign, settings=settings), out, way, joined)
    try:
        result: Any = run.run(overwrite=False)
    except Enough:
        result = None
    end = time.perf_counter()
    count = sum(sizes(out, out).values()) if isinstance(result, Result) else 0
    kept = sum(sizes(out, out / SAMPLES).values()) if count else 0
    short = Short(
        samples=settings.samples, rounds=sketch.rounds, units=run.units,
        unit=(run.units_done - run.units_began) / run.units, begin=run.units_began - start, merged=run.merged,
        join=end - run.units_done if count else 0.0, disk=count, parts=run.bytes_of_parts, kept=kept,
    )  # fmt: skip
    remove(out)
    return short, run.way
