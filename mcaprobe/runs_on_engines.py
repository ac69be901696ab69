"""How does a campaign run on many workers? Its missing chunks are units; they are merged as those of one process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.driving import drive
from mcaprobe.executors import PROCESSES, SLURM, Engine
from mcaprobe.failures import UnitsFailed
from mcaprobe.folders import remove, verify
from mcaprobe.memory import default_memory
from mcaprobe.observer import Observer
from mcaprobe.planning import Needs, Survey, plan
from mcaprobe.products import Products
from mcaprobe.runs_in_folder import CHUNKS, SHARED, InFolder
from mcaprobe.settings import Settings
from mcaprobe.storage import DamagedFile
from mcaprobe.work import SampleUnit, job_of, run_samples, unit_name, write_input

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign



class OnEngine(InFolder):
    """A campaign whose chunks are made by the workers of an engine, on a disk that all of them see."""

    def __init__(self, campaign: Campaign, out: Path, observer: Observer, engine: Engine) -> None:
        super().__init__(campaign, out.absolute(), observer)
        self.engine = engine
        self.taken: set[int] = set()

    def _direct(self, products: Products) -> bool:
        return False  # this process computes nothing itself

    def _chunks(self, seen: Survey, missing: list[int], needs: Needs) -> Needs:
        """Give out the missing blocks as units and wait until all are there."""
        settings = settings_of_workers(self.settings, self.engine)
        needs = plan(settings, seen, self.out, len(missing) or 1, one_at_a_time=self.alone is not None)
        if not missing:
            return needs
        parent = self.out / CHUNKS
        parent.mkdir(exist_ok=True)
        job, x = job_of(self.campaign, settings), write_input(self.out / SHARED, self.campaign)
        units = {
            f"samples {unit_name(settings, first, count)}": SampleUnit(job, x, first, count, parent)
            for first, count in spans(missing, units_of(missing, needs, self.engine))
        }
        with self.engine.opened(self.out / SHARED) as executor:
            failed = drive(
                executor, run_samples, units, lambda key: self._take(units[key]), self.say, self.engine.tries
            )
        if failed:
            raise UnitsFailed(failed, len(units), self.out)
        return needs

    def _take(self, unit: SampleUnit) -> bool:
        """Take the chunks of a unit; return whether all of its blocks are there and whole."""
        blocks = range(unit.first, unit.first + unit.count)
        names = [unit_name(self.settings, unit.first, unit.count), *(unit_name(self.settings, i, 1) for i in blocks)]
        for name in dict.fromkeys(names):
            chunk = unit.parent / name
            if not chunk.exists() or self.taken.issuperset(blocks):
                continue
            try:
                index = verify(chunk)
                self._absorb_index(index)
                self.taken.update(range(*index["blocks"]))
            except (DamagedFile, KeyError, TypeError) as error:
                self.say(f"Chunk {name} is repeated: {error}.")
                remove(chunk)
        if not self.taken.issuperset(blocks):
            return False
        self.observer.advance(sum(len(self.settings.blocks()[i]) for i in blocks))
        return True

    def _absorb_index(self, index: dict[str, Any]) -> None:
        before = self.alone
        super()._absorb_index(index)
        if self.alone is not None and before is None:
            self.say(f"The samples run one at a time, since this model cannot run them side by side: {self.alone}")


def settings_of_workers(settings: Settings, engine: Engine) -> Settings:
    """Return the settings of one worker: of workers on this machine each gets its part of the memory and the threads.

    Elsewhere `memory` is what one worker may take, and its threads are the processors that it was given.
    """
    if engine.kind == SLURM:  # whose nodes need not bind a task to the processors that it was given
        return replace(settings, threads=settings.threads or int(engine.options.get("cpus_per_task", 1)))
    if engine.kind != PROCESSES:
        return settings
    count = engine.at_once() or 1
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // count)
    return replace(settings, threads=threads, memory=(settings.memory or default_memory(settings.device)) // count)


def units_of(missing: list[int], needs: Needs, engine: Engine) -> int:
    """Return how many blocks a unit has: as few as keep all workers busy, as many as fit the memory of one."""
    count = engine.at_once()
    return 1 if count is None else min(needs.blocks, -(-len(missing) // count))


def spans(missing: list[int], most: int) -> list[tuple[int, int]]:
    """Return (first, count) of consecutive numbers, at most so many to a span."""
    found: list[tuple[int, int]] = []
    for i in missing:
        if found and found[-1][0] + found[-1][1] == i and found[-1][1] < most:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((i, 1))
    return found
