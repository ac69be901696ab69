"""How does a campaign run under Verrou? A process for each run, its layers in a file, folded when all are there.

The processes are this one's children, or those of the workers of an executor: then each run is a unit.
"""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import PROCESSES, Engine
from mcaprobe.folders import filling
from mcaprobe.folding import fold
from mcaprobe.launchers import Launch, check_image, choose, launch
from mcaprobe.manifest import identity_text
from mcaprobe.observer import Observer
from mcaprobe.planning import Needs, Survey, plan_processes
from mcaprobe.products import Products
from mcaprobe.proofs import counted, verrou_version
from mcaprobe.result import Result
from mcaprobe.runs_in_folder import SHARED, InFolder
from mcaprobe.sample_files import INPUT, JOB, PROTOCOL, Proof
from mcaprobe.storage import write_json, write_tensors
from mcaprobe.verrou import AGAIN, AUTO, NATIVE, REFERENCE, Verrou
from mcaprobe.verrou_samples import Samples
from mcaprobe.verrou_units import RunUnit

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign

FOLDER = "verrou"


class UnderVerrou(InFolder):
    """A campaign whose samples are processes under Verrou; the run directory holds their files until the end."""

    parts = FOLDER

    def __init__(
        self, campaign: "Campaign", out: Path, observer: Observer, options: Verrou, engine: Engine
    ) -> None:
        super().__init__(campaign, out, observer)
        self.options = options
        self.engine = engine
        self.folder = (out / FOLDER).absolute()
        self.launcher = options.launcher
        self.jobs = 1
        self.proofs: dict[str, Proof] = {}

    def run(self, overwrite: bool) -> Result:
        try:
            return super().run(overwrite)
        except RunFailure as error:
            if isinstance(error.__cause__, OSError):  # a full disk, as it is said of the processes
                raise InputError(str(error)) from error
            raise

    def _run(self, seen: Survey) -> Result:
        self.launcher = self._choose()
        asked = self.options.jobs if self.engine.local else self.engine.at_once() if self._own_workers() else 1
        needs, self.jobs = plan_processes(self.settings, seen, self.out, asked)
        self._save("running", seen, needs)
        samples = None
        try:
            with filling(self.out, "products") as folder:
                samples = self._prepare()
                ran = samples.adopt()
                self.observer.start(self.settings.samples, ran, len(seen.layers))
                self.observer.chunk(ran, self.settings.samples - 1)
                self.proofs = self._samples(samples)
                self._expect_layers(seen)
                products = Products(self.campaign, seen, folder)
                self.absorb(fold(self.settings, self.folder, self.proofs, products, self.observer))
                products.metrics(self.report.metrics)
                return self._finish(products, folder, seen, needs)
        except (InputError, RunFailure) as error:
            self.proofs = {} if samples is None else samples.proofs
            self.save_failure(error, seen, needs)
            raise

    def _own_workers(self) -> bool:
        """Return whether the workers are processes of this machine."""
        return self.engine.kind == PROCESSES

    def _choose(self) -> str:
        """Return the launcher; on other machines the workers look whether it is there."""
        if self.engine.local or self._own_workers() or self.options.launcher == AUTO:
            return choose(self.options)
        return self.options.launcher

    def _samples(self, samples: Samples) -> dict[str, Proof]:
        """Run what is missing, here or on the workers."""
        if self.engine.local:
            return samples.run()
        options = replace(self.options, launcher=self.launcher, jobs=None)

        def unit(run: str) -> RunUnit:
            return RunUnit(options, self.settings.mode, self.settings.seed, run, self.folder, Path.cwd())

        with self.engine.opened(self.out.absolute() / SHARED) as executor:
            return samples.run_on(executor, unit, self.engine.tries, self.out)

    def _prepare(self) -> Samples:
        """Write the job and return its runs."""
        self.folder.mkdir(exist_ok=True)
        if self.launcher != NATIVE and os.getuid() == 0:
            self.folder.chmod(0o777)  # inside the image nobody is root
        if self.engine.local or self._own_workers():
            check_image(self.options, self.launcher, self.folder)
        campaign, settings = self.campaign, self.settings
        identity = hashlib.sha256(identity_text(campaign.identity()).encode()).hexdigest()
        self.options.write_lists(self.folder)
        write_tensors(self.folder / INPUT, {"input": campaign.input.tensor})
        job = {
            "protocol": PROTOCOL,
            "identity": identity,
            "model": campaign.model.spec,
            "model_sha256": campaign.model.sha256,
            "layers": list(settings.layers),
            "seed": settings.seed,
            "metrics": [metric.spec for metric in campaign.metrics],
        }
        write_json(self.folder / JOB, job)
        mode = settings.mode
        return Samples(self.folder, settings.samples, mode, identity, self._launch, self.jobs, self.observer)

    def _launch(self, run: str) -> Launch:
        return launch(self.options, self.launcher, self.settings.mode, self.settings.seed, run, self.folder)

    def _expect_layers(self, seen: Survey) -> None:
        """Raise RunFailure where the model ran other layers under Verrou than in the plain forward of this process."""
        other = sorted(set(seen.layers) ^ set(self.proofs[REFERENCE].layers))
        if other:
            raise RunFailure(
                f"The model ran other layers under Verrou than in this process (the first is {other[0]}): the model "
                "or torch is another there."
            )

    def _advice(self) -> str:
        done = sum(1 for _ in self.folder.glob("*.safetensors")) if self.folder.is_dir() else 0
        return f"{done} files of finished runs stay there; free some space and give the same command again."

    def manifest(self, status: str, seen: Survey, needs: Needs, chunks: list[str]) -> dict[str, Any]:
        """Return the manifest, with what Verrou did and what proves it."""
        stated = super().manifest(status, seen, needs, [])
        known = self.proofs.get(REFERENCE)
        if known is not None:
            stated["machine"]["torch_cpu_capability"] = known.instruction_set
        stated["reference"] = {"kernels": "stock under Verrou, rounding to nearest",
                               "output_difference_from_stock": None}  # fmt: skip
        stated["verrou"] = {
            "launcher": self.launcher,
            "image": None if self.launcher == NATIVE else self.options.image,
            "version": verrou_version(self.folder, REFERENCE),
            "instruction_set": None if known is None else known.instruction_set,
            "versions": None if known is None else known.versions,
            "baseline_repeated": {REFERENCE, AGAIN} <= self.proofs.keys(),
            "counted": {
                run: counted(self.folder, run, proof) for run, proof in sorted(self.proofs.items(), key=_order)
            },
            "threads": {run: proof.threads for run, proof in sorted(self.proofs.items(), key=_order)},
        }
        return stated

    def times(self) -> dict[str, Any]:
        """Return the wall clock of each forward pass beside that of the campaign."""
        forward = {run: proof.seconds for run, proof in sorted(self.proofs.items(), key=_order)}
        return {"jobs": self.jobs, "executor": self.engine.name, "forward": forward}

    def _remove_chunks(self) -> None:
        for folder in (self.folder, self.out / SHARED):
            shutil.rmtree(folder, ignore_errors=True)


def _order(item: tuple[str, Proof]) -> tuple[int, str]:
    run = item[0]
    return (int(run) + 2, run) if run.isdigit() else (0 if run == REFERENCE else 1, run)
