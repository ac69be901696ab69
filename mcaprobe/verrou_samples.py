"""How do the baselines and the samples of a campaign come to be, each in a process, with a proof of each?"""

from collections.abc import Callable
from pathlib import Path

from mcaprobe.driving import drive
from mcaprobe.errors import InputError
from mcaprobe.executors import Submits
from mcaprobe.failures import UnitsFailed
from mcaprobe.launchers import Launch
from mcaprobe.observer import Observer
from mcaprobe.processes import Processes
from mcaprobe.proofs import Unproven, check_alone, check_baseline, check_same_machine, check_seeds, title
from mcaprobe.sample_files import (
    DISK_FULL,
    Proof,
    forget,
    last_lines,
    layers_file,
    log_file,
    proof_file,
    read_proof,
)
from mcaprobe.storage import DamagedFile
from mcaprobe.verrou import AGAIN, REFERENCE, runs_of
from mcaprobe.verrou_units import RunUnit, how, run_one


class Samples:
    """The runs of a campaign in their folder; finished ones are taken over, the others started.

    Args:
        launch: Returns how a run is launched.
        identity: Of the job; a finished run of another one is repeated.
        jobs: Processes at once.
    """

    def __init__(
        self, folder: Path, samples: int, mode: str, identity: str, launch: Callable[[str], Launch], jobs: int,
        observer: Observer,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.runs = runs_of(samples)
        self.mode = mode
        self.identity = identity
        self.launch = launch
        self.jobs = jobs
        self.observer = observer
        self.proofs: dict[str, Proof] = {}

    def adopt(self) -> int:
        """Take over what an earlier process finished; return the number of samples among it."""
        for run in self.runs:
            if proof_file(self.folder, run).exists():
                try:
                    self._accept(run, self._whole(run))
                except (DamagedFile, Unproven) as error:
                    self.observer.say(f"Finished before, but repeated: {title(run)}: {error}")
                    forget(self.folder, run)
        return sum(run not in (REFERENCE, AGAIN) for run in self.proofs)

    def run(self) -> dict[str, Proof]:
        """Run what is missing and return the proof of every run.

        Raises:
            InputError: a run died, the disk is full, or a proof failed; finished runs stay.
        """
        pending = [run for run in self.runs if run not in self.proofs]
        with Processes() as processes:
            while pending or len(processes):
                while pending and len(processes) < self.jobs:
                    run = pending.pop(0)
                    processes.start(run, self.launch(run), log_file(self.folder, run))
                run, code = processes.next()
                if code:
                    raise self._death(run, code)
                try:
                    proof = self._whole(run)
                except DamagedFile as error:
                    raise self._death(run, code) from error
                self._accept(run, proof)
                if run not in (REFERENCE, AGAIN):
                    self.observer.advance(1)
        return self.proofs

    def run_on(
        self, executor: Submits, unit: Callable[[str], RunUnit], tries: int, out: Path
    ) -> dict[str, Proof]:
        """Run what is missing on the workers of an executor and return the proof of every run.

        Args:
            unit: Returns what a worker is given for a run.
            tries: How often a run is given out in all.
            out: Run directory.
        Raises:
            InputError: a proof failed; finished runs stay.
            RunFailure: some runs failed, which the sentence names; the others stay.
        """
        runs = {title(run): run for run in self.runs if run not in self.proofs}
        units = {name: unit(run) for name, run in runs.items()}
        failed = drive(executor, run_one, units, lambda name: self._taken(runs[name]), self.observer.say, tries)
        if failed:
            raise UnitsFailed(failed, len(units), out)
        return self.proofs

    def _taken(self, run: str) -> bool:
        """Take a run that a worker finished; return whether it is there and whole."""
        if run in self.proofs:
            return True
        try:
            proof = self._whole(run)
        except DamagedFile:
            return False
        self._accept(run, proof)
        if run not in (REFERENCE, AGAIN):
            self.observer.advance(1)
        return True

    def _whole(self, run: str) -> Proof:
        proof = read_proof(self.folder, run, whole=run != AGAIN)  # the layers of the second baseline are not kept
        if proof.identity != self.identity:
            raise DamagedFile("it is of another campaign")
        return proof

    def _accept(self, run: str, proof: Proof) -> None:
        """Check all that can be checked now; a run that proves nothing is removed."""
        doubtful = [run]
        try:
            check_alone(run, proof)
            for other, known in self.proofs.items():
                check_same_machine(run, proof, other, known)
                break
            proofs = {**self.proofs, run: proof}
            if run in (REFERENCE, AGAIN) and {REFERENCE, AGAIN} <= proofs.keys():
                doubtful = [REFERENCE, AGAIN]
                check_baseline(self.folder, proofs[REFERENCE], proofs[AGAIN])
                layers_file(self.folder, AGAIN).unlink(missing_ok=True)
            if run in ("0", "1") and {"0", "1"} <= proofs.keys():
                doubtful = ["0", "1"]
                check_seeds(self.mode, ("0", proofs["0"]), ("1", proofs["1"]))
        except Unproven:
            for name in doubtful:
                forget(self.folder, name)
                self.proofs.pop(name, None)
            raise
        self.proofs[run] = proof

    def _death(self, run: str, code: int) -> InputError:
        kept = sum((self.folder / f"{name}.json").exists() for name in self.runs)
        forget(self.folder, run)
        if code == DISK_FULL:
            return InputError(
                f"The disk of {self.folder} is full: {kept} finished runs stay there; free some space and give the "
                "same command again."
            )
        lines = last_lines(self.folder, run)
        ends = "is empty" if not lines else "ends:" + "".join(f"\n    {line}" for line in lines)
        word = title(run)
        return InputError(
            f"{word[0].upper()}{word[1:]} {how(code)}, {kept} finished runs stay; its log "
            f"{log_file(self.folder, run)} {ends}"
        )
