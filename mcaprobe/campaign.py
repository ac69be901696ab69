"""What is a campaign? A model, an input and settings; `run` computes what is not yet done and returns the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcaprobe.errors import InputError
from mcaprobe.executors import Engine
from mcaprobe.loading import Input
from mcaprobe.locks import locked
from mcaprobe.manifest import identity
from mcaprobe.metrics import Metric
from mcaprobe.models import Model
from mcaprobe.observer import Observer
from mcaprobe.result import Result
from mcaprobe.runs_in_folder import InFolder
from mcaprobe.runs_in_memory import InMemory
from mcaprobe.runs_of_volumes import OfVolume
from mcaprobe.runs_on_engines import OnEngine
from mcaprobe.runs_under_verrou import UnderVerrou
from mcaprobe.settings import Settings


@dataclass(frozen=True)
class Campaign:
    """A model, an input and settings: everything that a run is made of."""

    settings: Settings
    model: Model
    input: Input
    metrics: list[Metric] = field(default_factory=list)

    def identity(self) -> dict[str, Any]:
        """Return what the bits of the results depend on."""
        return identity(self.settings, self.model, self.input, self.metrics)

    def run(
        self, out: Path | None, observer: Observer, overwrite: bool = False, engine: Engine | None = None
    ) -> Result:
        """Run what is not yet done and return the result.

        Args:
            out: Run directory, made when absent, resumed when it holds the same run; None: all stays in memory.
            overwrite: Remove the run that `out` holds, whatever it is.
            engine: Where chunks of samples run; None: in this process. Changes no bit.
        Raises:
            InputError: bad input, another run's directory, not enough memory or disk; nothing was started.
            RunFailure: the run could not end; the chunks that are done stay.
        """
        verrou = self.settings.verrou
        engine = engine or Engine()
        if self.input.whole is not None and (out is None or verrou is not None):
            raise InputError("A whole volume is streamed into a run directory: give out; and not under Verrou.")
        if not engine.local and out is None:
            raise InputError(f"Workers of {engine.name} meet in a run directory: give out.")
        if not engine.local and verrou is not None and verrou.jobs is not None:
            raise InputError(f"--jobs are processes of this one: with the executor {engine.name} give --workers.")
        try:
            if out is None:
                if verrou is not None:
                    raise InputError("A campaign under Verrou needs a run directory, where its samples are: give out.")
                return InMemory(self, observer).run()
            with _made(out), locked(out):
                if verrou is not None:
                    return UnderVerrou(self, out, observer, verrou, engine).run(overwrite)
                if self.input.whole is not None:
                    return OfVolume(self, out, observer, engine, self.input.whole).run(overwrite)
                if not engine.local:
                    return OnEngine(self, out, observer, engine).run(overwrite)
                return InFolder(self, out, observer).run(overwrite)
        finally:
            observer.stop()


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """Make the run directory; where the run is refused before it wrote anything, it is gone again."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a run directory.")
    fresh = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the run directory {out}: {error.strerror}.") from error
    try:
        yield
    finally:
        if fresh and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
