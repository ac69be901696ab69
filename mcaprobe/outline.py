"""What will a campaign be made of? Its units, how many passes each has, and what a worker takes; nothing runs here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mcaprobe.executors import Engine
from mcaprobe.planning import Survey, memory_needed, plan
from mcaprobe.runs_of_volumes import pieces_to_a_unit
from mcaprobe.runs_on_engines import spans, units_of
from mcaprobe.settings import Settings

DIRECT, BY_CHUNKS, BY_PIECES = "direct", "chunks", "pieces"


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker does at a time.

    Attributes:
        pieces: Slices or patches; 1 where it is a chunk of samples.
        rounds: Passes one after another of a piece or chunk: its runs, the unperturbed one too, over the threads.
    """

    pieces: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The way of a campaign.

    Attributes:
        way: DIRECT (one unit writes the products itself), BY_CHUNKS of samples, or BY_PIECES of a volume.
        units: In the order in which they are given out.
        merged: Blocks or pieces that are put together behind them.
        blocks: Blocks to a unit.
        memory: Predicted peak of a worker in bytes.
        alone: Whether samples run one at a time.
    """

    way: str
    units: tuple[Unit, ...]
    merged: int
    blocks: int
    memory: int
    alone: bool


def rounds_of(settings: Settings, most: int, alone: bool) -> list[int]:
    """Return how many passes one after another each chunk of at most `most` blocks is, its unperturbed run included."""
    blocks, found = settings.blocks(), []
    for first, count in spans(list(range(len(blocks))), most):
        lanes = 1 + sum(map(len, blocks[first : first + count]))
        found.append(lanes if alone else -(-lanes // settings.thread_count()))
    return found


def outline(
    settings: Settings, engine: Engine, seen: Survey, pieces: int | None, folder: Path, alone: bool = False
) -> Outline:
    """Return what a campaign will be made of, by the rules that the campaign itself follows.

    Args:
        settings: Of one worker.
        pieces: Of a whole volume; None for one input.
        folder: On the disk that the run directory will be on.
    Raises:
        InputError: not even one block fits the memory, or the products do not fit the disk.
    """
    needs = plan(settings, seen, folder, one_at_a_time=alone)
    count = len(settings.blocks())
    if pieces is not None:
        each, most = sum(rounds_of(settings, needs.blocks, alone)), pieces_to_a_unit(pieces, engine)
        units = tuple(Unit(min(most, pieces - i), each) for i in range(0, pieces, most))
        return Outline(BY_PIECES, units, pieces, needs.blocks, needs.memory, alone)
    if engine.local and needs.blocks >= count and not alone:
        return Outline(DIRECT, (Unit(1, *rounds_of(settings, count, alone)),), 0, count, needs.memory, alone)
    most = needs.blocks if engine.local else units_of(list(range(count)), needs, engine)
    units = tuple(Unit(1, each) for each in rounds_of(settings, most, alone))
    lanes = 1 if alone else 1 + min(settings.samples, most * settings.block)
    memory = memory_needed(settings, seen, lanes, int(alone), in_memory=False)
    return Outline(BY_CHUNKS, units, count, most, memory, alone)


@dataclass(frozen=True, slots=True)
class Sketch:
    """A short campaign: its settings, the rounds of a unit of it, and how many pieces of the volume it takes."""

    settings: Settings
    rounds: int
    pieces: int


def sketches(settings: Settings, planned: Outline) -> tuple[Sketch, ...]:
    """Return short campaigns of the planned one's way, with two different numbers of passes where it has as many.

    None of them is larger than the planned campaign; a campaign that is as short itself is run once, as it is.
    """
    threads = 1 if planned.alone else settings.thread_count()
    lanes = threads * -(-3 // threads)
    pieces = planned.merged if planned.way == BY_PIECES else 1
    if planned.way != BY_CHUNKS:
        pairs = [(min(settings.samples, count - 1), min(pieces, many)) for count, many in ((lanes, 1), (2 * lanes, 2))]
        shorter = {pair: replace(settings, samples=pair[0]) for pair in pairs}
        return tuple(
            Sketch(s, sum(rounds_of(s, planned.blocks, planned.alone)), many) for (_, many), s in shorter.items()
        )
    block = settings.block
    few = min(settings.samples, max(2, min(block, lanes - 1)))
    least = -(-few // block)  # blocks of the first, as one unit
    unit = least if planned.blocks == 1 else min(planned.blocks, max(2, -(-2 * threads // block)))
    more = min(settings.samples, max(unit, 2 * least) * block)
    sizes = {few: least, more: unit}
    return tuple(_by_chunks(settings, n, blocks, planned.alone) for n, blocks in sizes.items())


def _by_chunks(settings: Settings, samples: int, blocks: int, alone: bool) -> Sketch:
    shorter = replace(settings, samples=samples, chunk=blocks * settings.block)
    return Sketch(shorter, rounds_of(shorter, blocks, alone)[0], 1)
