"""How does a worker run pieces of a volume? Each is a campaign of its own in a sealed folder, with its own seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcaprobe.driving import out_of_memory
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.folders import claim, disk_errors, filling, mine, seal
from mcaprobe.loading import Input
from mcaprobe.models import Model
from mcaprobe.observer import Observer
from mcaprobe.planning import Survey
from mcaprobe.runs_in_folder import InFolder
from mcaprobe.streams import piece_seed
from mcaprobe.whole import Whole
from mcaprobe.work import ONE_AT_A_TIME, Job, ready, whole

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign


@dataclass(frozen=True)
class PieceUnit:
    """One input, a chunk of its slices or patches, and the folder of pieces.

    Attributes:
        volume: The input with its voxels in a file.
        seen: The layers of a piece; all pieces have one shape.
    """

    job: Job
    volume: Whole
    seen: Survey
    numbers: tuple[int, ...]
    parent: Path


class Watching(Observer):
    """Hands on what happens inside of a piece that this process runs; what is done is counted by the driver."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def chunk(self, first: int, last: int) -> None:
        self.observer.chunk(first, last)

    def layer(self, name: str) -> None:
        self.observer.layer(name)


class PieceRun(InFolder):
    """A campaign of one piece, in a folder that nobody else writes."""

    pictures = False

    def __init__(self, campaign: Campaign, out: Path, observer: Observer, seen: Survey) -> None:
        super().__init__(campaign, out, observer)
        self.seen = seen

    def look(self) -> Survey:
        """Return what the driver saw."""
        return self.seen


def run_pieces(unit: PieceUnit, observer: Observer | None = None) -> None:
    """Run the pieces of a unit in this worker and leave a sealed folder for each; what is there is not done again.

    Raises:
        RunFailure: some pieces failed, which the sentence names; the others are there.
    """
    failed: list[str] = []
    with ONE_AT_A_TIME, disk_errors(unit.parent, lambda: "the pieces that are finished stay"):
        for number in unit.numbers:
            if whole(unit.parent / str(number)):
                continue
            try:
                run_piece(unit, number, observer or Observer())
            except (InputError, RunFailure) as error:
                if out_of_memory(error):
                    raise
                failed.append(f"{unit.volume.kind} {number}: {error}")
    if failed:
        raise RunFailure("; ".join(failed))


def run_piece(unit: PieceUnit, number: int, observer: Observer) -> None:
    """Run one piece; its folder `parent / <number>` appears once, whole, and of two workers the first one's stays."""
    from mcaprobe.campaign import Campaign

    module, metrics = ready(unit.job)
    settings = replace(unit.job.settings, seed=piece_seed(unit.job.settings.seed, number))
    picture = unit.volume.picture(number)
    x = Input(picture.tensor.to(settings.device), unit.volume.name, "", None, picture, unit.volume.options,
              unit.volume.regions(picture))  # fmt: skip
    campaign = Campaign(settings, Model(module, unit.job.name, unit.job.model_sha256), x, metrics)
    with filling(unit.parent, mine(str(number))) as folder:
        PieceRun(campaign, folder, observer, unit.seen).run(overwrite=False)
        seal(folder, {"piece": number})
        claim(folder, unit.parent / str(number))


def chunks_of(numbers: list[int], most: int) -> list[tuple[int, ...]]:
    """Return the numbers in order, at most so many together."""
    return [tuple(numbers[i : i + most]) for i in range(0, len(numbers), most)]
