"""A model whose workers meet a fault, and executors that lose, repeat, reorder and damage units."""

import os
import random
import signal
import threading
from concurrent.futures import Executor, Future
from pathlib import Path

from torch import Tensor, nn

from mcaprobe.driving import Outcome
from tests.mcaprobe import small_models as models

KIND, TIMES, FOLDER, DRIVER = "FAULT_KIND", "FAULT_TIMES", "FAULT_FOLDER", "FAULT_DRIVER"
HERE = "tests.mcaprobe.unit_faults:build_faulty"


def plant(monkeypatch, folder: Path, kind: str, times: int) -> None:
    """Let the first `times` forwards in other processes than this one meet a fault."""
    folder.mkdir(exist_ok=True)
    for name, value in ((KIND, kind), (TIMES, times), (FOLDER, folder), (DRIVER, os.getpid())):
        monkeypatch.setenv(name, str(value))


def meet() -> None:
    """Meet the planted fault, where there is one left in this process."""
    if os.environ.get(DRIVER) in (None, str(os.getpid())):
        return
    for i in range(int(os.environ[TIMES])):
        try:
            (Path(os.environ[FOLDER]) / str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        if os.environ[KIND] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ[KIND] == "memory":
            raise MemoryError
        raise OSError(int(os.environ[KIND]), os.strerror(int(os.environ[KIND])))


class Faulty(models.Small):
    """Small, whose forward meets the planted fault."""

    def forward(self, x: Tensor) -> Tensor:
        meet()
        return super().forward(x)


def build_faulty() -> nn.Module:
    """Return Faulty."""
    return Faulty().eval()


def first_of(unit) -> int:
    """Return the first block or piece of a unit, or the number of its run; baselines are below 0."""
    if hasattr(unit, "run"):
        return {"reference": -2, "again": -1}.get(unit.run) or int(unit.run)
    return unit.numbers[0] if hasattr(unit, "numbers") else unit.first


class Gathering(Executor):
    """Runs units in a thread, a moment after they were submitted, in another order; may do more with each."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.gathered, self.runs = [], []
        self.lock = threading.Lock()

    def submit(self, function, work, unit):
        future = Future()
        with self.lock:
            self.gathered.append((future, function, work, unit))
            if len(self.gathered) == 1:
                threading.Timer(0.1, self.flush).start()
        return future

    def flush(self) -> None:
        with self.lock:
            part, self.gathered = self.gathered, []
        self.chance.shuffle(part)
        for future, function, work, unit in part:
            self.runs.append(first_of(unit))
            self.one(future, function, work, unit)

    def one(self, future, function, work, unit) -> None:
        future.set_result(function(work, unit))


class Losing(Gathering):
    """Loses the first try of each unit, before it ran or after it."""

    def one(self, future, function, work, unit) -> None:
        if self.runs.count(first_of(unit)) == 1:
            if first_of(unit) % 2:
                function(work, unit)
            future.set_exception(ConnectionError("node gone"))
        else:
            super().one(future, function, work, unit)


class Repeating(Gathering):
    """Runs each unit twice."""

    def one(self, future, function, work, unit) -> None:
        function(work, unit)
        super().one(future, function, work, unit)


class Lying(Gathering):
    """Says of the first try of each unit that it ended, and did nothing."""

    def one(self, future, function, work, unit) -> None:
        if self.runs.count(first_of(unit)) == 1:
            future.set_result(Outcome())
        else:
            super().one(future, function, work, unit)


class Damaging(Gathering):
    """Cuts a file of the first try of each unit short."""

    def one(self, future, function, work, unit) -> None:
        outcome = function(work, unit)
        if self.runs.count(first_of(unit)) == 1:
            for path in unit.parent.glob(f"*/blocks/{unit.first}/conv1.safetensors"):
                path.write_bytes(path.read_bytes()[:-1])
        future.set_result(outcome)


class Failing(Gathering):
    """Never runs the unit of block 1."""

    def one(self, future, function, work, unit) -> None:
        if first_of(unit) == 1:
            future.set_exception(ConnectionError("node gone"))
        else:
            super().one(future, function, work, unit)


class Refusing(Executor):
    """A scheduler that takes nothing."""

    def submit(self, function, work, unit):
        raise RuntimeError("Invalid account or account/partition combination specified")
