"""How does a whole volume run? Piece by piece, on whatever workers there are; then layer by layer the volumes of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.collecting import UnitReport
from mcaprobe.driving import drive
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import Engine
from mcaprobe.failures import UnitsFailed
from mcaprobe.folders import commit, filling, remove, verify
from mcaprobe.manifest import MANIFEST
from mcaprobe.observer import Observer
from mcaprobe.pieces import PieceUnit, Watching, chunks_of, run_pieces
from mcaprobe.planning import HISTOGRAM_BYTES, Needs, Survey, expect_room, kept_bytes, map_bytes, plan
from mcaprobe.products import PRODUCTS
from mcaprobe.result import Result, load
from mcaprobe.runs_in_folder import SHARED, InFolder, finished, sizes
from mcaprobe.runs_on_engines import settings_of_workers
from mcaprobe.storage import DamagedFile, read_json
from mcaprobe.volume_products import VolumeProducts
from mcaprobe.whole import Whole
from mcaprobe.work import job_of

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign

PARTS = "pieces"
MOST = 8  # pieces to a unit
VOLUME = "volume.safetensors"


class OfVolume(InFolder):
    """A campaign of a whole volume; the run directory holds its finished pieces until all are there."""

    parts = PARTS

    def __init__(self, campaign: Campaign, out: Path, observer: Observer, engine: Engine, whole: Whole) -> None:
        super().__init__(campaign, out.absolute(), observer)
        self.engine = engine
        self.whole = whole
        self.taken: dict[int, Path] = {}
        if self.settings.keep_samples:
            raise InputError("The activations of a whole volume are not kept: run one slice of it with --keep-samples.")

    def _run(self, seen: Survey) -> Result:
        settings = settings_of_workers(self.settings, self.engine)
        disk = self._disk(seen)
        expect_room(disk, self.out)
        needs = plan(settings, seen, self.out, one_at_a_time=self.alone is not None)
        needs = Needs(needs.memory, needs.allowed, disk, needs.blocks)
        for number in self.whole.numbers:
            self._take(number)
        self._save("running", seen, needs)
        count = len(self.whole.numbers)
        samples = self.settings.samples
        self.observer.start(count * samples, len(self.taken) * samples, len(seen.layers))
        try:
            self._pieces(seen)
            with filling(self.out, "products") as folder:
                pieces = {number: self.taken[number] for number in self.whole.numbers}
                products = VolumeProducts(self.campaign, self.whole, seen, pieces, folder)
                products.layers(self.report.layers)
                self.check_perturbed(products.rows)
                products.maps(self.manifest("complete", seen, needs, []), products.anatomy())
                return self._place(folder, seen, needs)
        except RunFailure as error:
            self.save_failure(error, seen, needs)
            raise

    def _disk(self, seen: Survey) -> int:
        """Return the predicted size of the run directory: pieces and products, the volume for the workers."""
        regions = 3 if self.whole.labels is None else 3 + len(self.whole.labels.chosen)
        count, piece = len(self.whole.numbers), kept_bytes(self.settings, seen) + map_bytes(seen)
        histograms = (count + 1) * len(seen.layers) * (HISTOGRAM_BYTES // 3) * regions
        return 2 * count * piece + histograms + 13 * int(self.whole.data.size) + 2**20

    def _pieces(self, seen: Survey) -> None:
        """Give out the missing pieces and wait until all are there."""
        missing = [number for number in self.whole.numbers if number not in self.taken]
        if not missing:
            return
        parent, work = self.out / PARTS, self.out / SHARED
        parent.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        self.whole.store(work / VOLUME)
        volume = self.whole.stored(work / VOLUME)
        job = job_of(self.campaign, settings_of_workers(self.settings, self.engine))
        units = {
            self._name(numbers): PieceUnit(job, volume, seen, numbers, parent)
            for numbers in chunks_of(missing, pieces_to_a_unit(len(missing), self.engine))
        }
        run = partial(run_pieces, observer=Watching(self.observer)) if self.engine.local else run_pieces
        with self.engine.opened(work) as executor:
            failed = drive(
                executor, run, units, lambda key: self._all(units[key]), self.say, self.engine.tries
            )
        if failed:
            raise UnitsFailed(failed, len(units), self.out)

    def _name(self, numbers: tuple[int, ...]) -> str:
        one = self.whole.kind
        many = "patches" if one == "patch" else "slices"
        return f"{one} {numbers[0]}" if len(numbers) == 1 else f"{many} {', '.join(map(str, numbers))}"

    def _all(self, unit: PieceUnit) -> bool:
        before = len(self.taken)
        there = [number in self.taken or self._take(number) for number in unit.numbers]
        self.observer.advance((len(self.taken) - before) * self.settings.samples)
        return all(there)

    def _take(self, number: int) -> bool:
        """Take a finished piece; return whether it is there and whole."""
        folder = self.out / PARTS / str(number)
        if not folder.exists():
            return False
        try:
            verify(folder)
            manifest = read_json(folder / MANIFEST)
            layers = {name: about["operator"] for name, about in manifest["layers"].items()}
            self.absorb(UnitReport(layers, manifest["aliases"], manifest["operators"]))
            for note in manifest["notes"]:
                self.say(note)
        except (DamagedFile, KeyError, TypeError) as error:
            self.say(f"The {self.whole.kind} {number} is repeated: {error}.")
            remove(folder)
            return False
        self.taken[number] = folder
        return True

    def manifest(self, status: str, seen: Survey, needs: Needs, chunks: list[str]) -> dict[str, Any]:
        """Return the manifest with the shapes of the whole volume instead of those of a piece."""
        found = super().manifest(status, seen, needs, chunks)
        pieces = VolumeProducts(self.campaign, self.whole, seen, {}, self.out)
        shape = list(self.campaign.input.tensor.shape)
        found["input"]["piece_shape"] = shape
        found["input"]["shape"] = [*shape[:2], *pieces.size]
        found["pieces"] = {"kind": self.whole.kind, "numbers": list(self.whole.numbers),
                           "seeds": "mcaprobe.streams.piece_seed(seed, number)"}  # fmt: skip
        for name, about in found["layers"].items():
            assembly = pieces.assembly(name, tuple(about["shape"]))
            about["shape"] = list(assembly.assembled)
            if not assembly.mapped:
                about.update(grid=None, grid_assumed=False)
            elif about["grid"] is not None and self.whole.axis is not None:
                grid = [list(step) for step in about["grid"]]
                grid.insert(self.whole.axis, [1.0, 0.0])
                about["grid"] = grid
        return found

    def _place(self, folder: Path, seen: Survey, needs: Needs) -> Result:
        """Rename the products into place, complete the manifest, and only then remove the pieces."""
        files: dict[str, int] = {}
        for name in PRODUCTS:
            if (folder / name).exists():
                commit(folder / name, self.out / name)
                files.update(sizes(self.out, self.out / name))
        self._save("complete", seen, needs, files=dict(sorted(files.items())))
        self._remove_chunks()
        return load(self.out)

    def _advice(self) -> str:
        done = len(finished(self.out / PARTS))
        kept = f"{done} finished pieces stay there" if done else "nothing half-written is left"
        return f"{kept}; free some space and give the same command again."

    def _remove_chunks(self) -> None:
        for name in (PARTS, SHARED):
            if (self.out / name).exists():
                remove(self.out / name)


def pieces_to_a_unit(missing: int, engine: Engine) -> int:
    """Return how many pieces a unit has: each has its own seed, so no bit depends on it."""
    if engine.local:
        return 1
    return max(1, min(MOST, missing // (4 * (engine.at_once() or MOST))))
