"""How does a campaign in a run directory survive? Chunks are renamed into place once and merged when all are there."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.chunks import run_chunk
from mcaprobe.collecting import AnyMoments, UnitReport
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.folders import commit, disk_errors, filling, remove, sweep, verify
from mcaprobe.lanes import LockstepError
from mcaprobe.locks import LOCK
from mcaprobe.manifest import FORMAT, MANIFEST, command, expect_same, now
from mcaprobe.metrics import as_numbers
from mcaprobe.observer import Observer
from mcaprobe.planning import Needs, Survey, plan
from mcaprobe.products import PRODUCTS, Products
from mcaprobe.result import Result, load
from mcaprobe.runs import Run
from mcaprobe.statistics import IndexMoments, Moments
from mcaprobe.storage import TEMPORARY, DamagedFile, file_name, read_json, read_tensors, write_json
from mcaprobe.units import run_unit

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign

CHUNKS = "chunks"
SHARED = "work"  # what workers of other processes read
WORK = (CHUNKS, "verrou", SHARED, "pieces")  # what is there only while a run is not complete


class InFolder(Run):
    """A campaign in a run directory, which it owns (the lock is held).

    Attributes:
        parts: Name of the folder with what is finished, while the run is not complete.
        pictures: Whether maps and a picture are among the products.
    """

    parts = CHUNKS
    pictures = True

    def __init__(self, campaign: "Campaign", out: Path, observer: Observer) -> None:
        super().__init__(campaign, observer)
        self.out = out
        self.began = now()
        self.earlier = 0.0

    def run(self, overwrite: bool) -> Result:
        sweep(self.out)
        sweep(self.out / self.parts)
        stored = self._stored(overwrite)
        if stored is not None:
            expect_same(self.out, stored["identity"], self.campaign.identity())
            if stored["status"] == "complete" and self._whole(stored):
                self._remove_chunks()  # a process that was killed just before its end leaves them
                self.observer.say(f"{self.out} holds this run already, complete: nothing to do.")
                return load(self.out)
            self.earlier = float(stored.get("times", {}).get("seconds", 0.0))
            self.notes += [note for note in stored.get("notes", []) if note not in self.notes]
        seen = self.look()
        with disk_errors(self.out, self._advice):
            try:
                return self._run(seen)
            except KeyboardInterrupt:
                # One that falls between the making of a temporary folder and the block that removes it leaves it.
                sweep(self.out)
                sweep(self.out / self.parts)
                raise

    def _stored(self, overwrite: bool) -> dict[str, Any] | None:
        """Return the manifest of the directory, or None where it is empty."""
        if not (self.out / MANIFEST).exists():
            others = [path.name for path in self.out.iterdir() if path.name != LOCK]
            if others:
                raise InputError(
                    f"{self.out} is no run directory and not empty (it has {sorted(others)[0]}): choose another --out."
                )
            return None
        if overwrite:
            remove(self.out / MANIFEST)
            for name in (*WORK, *PRODUCTS):
                if (self.out / name).exists():
                    remove(self.out / name)
            return None
        try:
            stored = read_json(self.out / MANIFEST)
        except DamagedFile as error:
            raise InputError(f"{error}: start the run again with --overwrite.") from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise InputError(f"{self.out / MANIFEST} is not a manifest of format {FORMAT}: choose another --out.")
        return stored

    def _whole(self, stored: dict[str, Any]) -> bool:
        """Return whether all files of a complete run are there; say which one is not."""
        for name, size in stored["files"].items():
            path = self.out / name
            if not path.is_file() or path.stat().st_size != size:
                self.say(f"{path} is missing or not as it was written: the run is repeated.")
                return False
        return True

    def _advice(self) -> str:
        done = sorted(p.name for p in (self.out / CHUNKS).glob("[0-9]*")) if (self.out / CHUNKS).is_dir() else []
        kept = f"{len(done)} finished chunks stay there" if done else "nothing half-written is left"
        return f"{kept}; free some space and give the same command again."

    def _done(self) -> dict[int, Path]:
        """Return the folder of each block that an earlier process finished; damaged chunks are removed and said."""
        found: dict[int, Path] = {}
        folder = self.out / CHUNKS
        for chunk in finished(folder):
            try:
                index = verify(chunk)
                self._absorb_index(index)
                found.update(dict.fromkeys(range(*index["blocks"]), chunk))
            except (DamagedFile, KeyError, TypeError) as error:
                self.say(f"Chunk {chunk.name} is repeated: {error}.")
                remove(chunk)
        return found

    def _absorb_index(self, index: dict[str, Any]) -> None:
        report = UnitReport(index["layers"], index["aliases"], index["operators"], as_numbers(index["metrics"]),
                            index["one_at_a_time"], index["seconds"])  # fmt: skip
        self.absorb(report)

    def _save(self, status: str, seen: Survey, needs: Needs, **more: Any) -> dict[str, Any]:
        folder = self.out / self.parts
        chunks = [p.name for p in finished(folder)]
        manifest = self.manifest(status, seen, needs, chunks)
        seconds = self.earlier + time.perf_counter() - self.started
        manifest["times"] = {"started": self.began, "finished": now(), "seconds": seconds, **self.times()}
        manifest["command"] = command()
        manifest.update(more)
        write_json(self.out / MANIFEST, manifest)
        return manifest

    def times(self) -> dict[str, Any]:
        """Return what the manifest tells of the clock beside the whole."""
        return {}

    def save_failure(self, error: Exception, seen: Survey, needs: Needs) -> None:
        """Write the manifest of a run that could not end."""
        with suppress(OSError):  # the failure is told in any case
            self._save("failed", seen, needs, failures=getattr(error, "failures", [str(error)]))

    def _run(self, seen: Survey) -> Result:
        done = self._done()
        total = len(self.settings.blocks())
        missing = [i for i in range(total) if i not in done]
        needs = plan(self.settings, seen, self.out, len(missing) or 1, one_at_a_time=self.alone is not None)
        self._save("running", seen, needs)
        ran = sum(len(block) for i, block in enumerate(self.settings.blocks()) if i in done)
        self.observer.start(self.settings.samples, ran, len(seen.layers))
        try:
            with filling(self.out, "products") as folder:
                products = Products(self.campaign, seen, folder)
                direct = not done and needs.blocks >= total and self._direct(products)
                if not direct:
                    needs = self._chunks(seen, missing, needs)
                    self._merge(products)
                products.metrics(self.report.metrics)
                return self._finish(products, folder, seen, needs)
        except RunFailure as error:
            self.save_failure(error, seen, needs)
            raise
        finally:
            if (self.out / CHUNKS).is_dir() and not any((self.out / CHUNKS).iterdir()):
                (self.out / CHUNKS).rmdir()

    def _direct(self, products: Products) -> bool:
        """Run all blocks as one chunk straight to the products; return whether that was possible."""
        model, x, blocks = self.campaign.model.module, self.campaign.input.tensor, self.settings.blocks()
        try:
            self.absorb(run_unit(self.settings, model, x, blocks, self.campaign.metrics, products, self.observer))
        except LockstepError as error:
            self.go_alone(error)
            products.clear()
            return False
        return True

    def _chunks(self, seen: Survey, missing: list[int], needs: Needs) -> Needs:
        """Run the missing blocks, chunk by chunk."""
        parent = self.out / CHUNKS
        parent.mkdir(exist_ok=True)
        model, x = self.campaign.model.module, self.campaign.input.tensor
        if self.alone is not None:
            needs = plan(self.settings, seen, self.out, len(missing) or 1, one_at_a_time=True)
        while missing:
            first, count = missing[0], 1
            while count < min(needs.blocks, len(missing)) and missing[count] == first + count:
                count += 1
            try:
                self.absorb(
                    run_chunk(
                        self.settings,
                        model,
                        x,
                        first,
                        count,
                        self.campaign.metrics,
                        parent,
                        self.observer,
                        self.alone,
                    )
                )
            except LockstepError as error:
                self.go_alone(error)
                needs = plan(self.settings, seen, self.out, len(missing), one_at_a_time=True)
                continue
            del missing[:count]
        return needs

    def _merge(self, products: Products) -> None:
        """Merge the blocks of all chunks in index order, layer by layer."""
        folders = {}
        for chunk in finished(self.out / CHUNKS):
            index = read_json(chunk / "index.json")
            for block in range(*index["blocks"]):
                folders[block] = chunk / "blocks" / str(block)

        def blocks(name: str) -> Iterator[AnyMoments]:
            for block in sorted(folders):
                state = read_tensors(folders[block] / f"{file_name(name)}.safetensors")
                yield IndexMoments.from_state(state) if "changes" in state else Moments.from_state(state)

        try:
            for name, operator in self.report.layers.items():
                products.layer(name, operator, blocks(name))
        except DamagedFile as error:
            raise RunFailure(f"{error}: give the same command again, that chunk is then repeated.") from error
        for chunk in finished(self.out / CHUNKS):
            products.adopt_samples(chunk / "samples")

    def _finish(self, products: Products, folder: Path, seen: Survey, needs: Needs) -> Result:
        """Rename the products into place, complete the manifest, and only then remove the chunks."""
        self.check_perturbed(products.rows)
        manifest = self.manifest("complete", seen, needs, [])
        products.write(manifest, self.pictures)
        files: dict[str, int] = {}
        for name in PRODUCTS:
            if (folder / name).exists():
                commit(folder / name, self.out / name)
                files.update(sizes(self.out, self.out / name))
        self._save("complete", seen, needs, files=dict(sorted(files.items())))
        self._remove_chunks()
        return load(self.out)

    def _remove_chunks(self) -> None:
        for name in (CHUNKS, SHARED):
            if (self.out / name).exists():
                remove(self.out / name)


def finished(folder: Path) -> list[Path]:
    """Return what was renamed into place in a folder, by name; what a worker still writes, or left, is not."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if not path.name.startswith(TEMPORARY)]


def sizes(root: Path, path: Path) -> dict[str, int]:
    """Return the bytes of each file at or below `path`, by its name below `root`."""
    paths = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p.relative_to(root)): p.stat().st_size for p in paths}
