"""What is there to run Verrou with, a Valgrind here or an engine with an image, and how is a run launched?"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcaprobe.container import CAMPAIGN, PYTHON, engine_of, image_of, inside
from mcaprobe.errors import InputError
from mcaprobe.verrou import APPTAINER, AUTO, LAUNCHERS, NATIVE, VARIABLES, Verrou, native_variables, valgrind, worker

PROBE = ["valgrind", "--tool=verrou", "--version"]
PATIENCE = 60.0  # seconds that an engine may take to answer


def ask(command: Sequence[str]) -> tuple[int, str]:
    """Return the exit code of a short command and the last line it printed; 127 where there is no such program."""
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE)  # fmt: skip
    except (FileNotFoundError, PermissionError):
        return 127, f"there is no program {command[0]} on PATH"
    except subprocess.TimeoutExpired:
        return 124, f"it did not answer within {PATIENCE:.0f} seconds"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else f"it ended with exit code {done.returncode}"


def absence(options: Verrou, launcher: str) -> str | None:
    """Return why a launcher cannot run Verrou, in one sentence with its remedy; None where it can."""
    if launcher == NATIVE:
        code, answer = ask(PROBE)
        if code == 127:
            return f"There is no Valgrind: {answer}; install Verrou and put it there (source its env.sh)."
        if code:
            return f"Valgrind has no tool verrou ({answer}): put a Valgrind with Verrou first on PATH (its env.sh)."
        return None
    engine, image = engine_of(options, launcher), image_of(options, launcher)
    code, answer = ask([*engine, "--version" if launcher == APPTAINER else "version"])
    if code:
        return f"The engine {engine[0]} cannot be used: {answer}; install it, or choose another --launcher."
    if launcher == APPTAINER:
        if not Path(image).exists():
            return f"There is no image {image}: build it from docker/ or name another by --image."
    else:
        code, answer = ask([*engine, "image", "inspect", "--format", "{{.Id}}", image])
        if code:
            return f"{engine[0]} has no image {image} ({answer}): build it from docker/ or name another by --image."
    return None


def choose(options: Verrou) -> str:
    """Return the launcher that is asked for, or the first that is there.

    Raises:
        InputError: it is not there, or an image has no Verrou.
    """
    if options.launcher != AUTO:
        why = absence(options, options.launcher)
        if why is not None:
            raise InputError(why)
        return options.launcher
    foreign = bool(options.image or options.engine or options.engine_options)
    for launcher in LAUNCHERS:
        if not (launcher == NATIVE and foreign) and absence(options, launcher) is None:
            return launcher
    raise InputError(
        "Nothing here can run Verrou: no Valgrind with the tool verrou is on PATH, and neither docker, podman nor "
        "apptainer has the image; `mcaprobe doctor` says what is missing."
    )


def check_image(options: Verrou, launcher: str, folder: Path) -> None:
    """Raise InputError where the engine refuses to run the image, or the image has no Verrou."""
    if launcher == NATIVE:
        return
    command = inside(options, launcher, PROBE, VARIABLES, folder, Path.cwd(), _user())
    code, answer = ask(command)
    if code:
        image, engine = image_of(options, launcher), engine_of(options, launcher)[0]
        raise InputError(
            f"The image {image} has no Verrou, or {engine} refuses to run it ({answer}): build it from docker/, or "
            "give the engine what it needs by --engine-option."
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """One process: its command, the environment of the process that runs it, and its folder; None: this process's."""

    command: list[str]
    environment: dict[str, str]
    folder: Path | None = None

    def text(self) -> str:
        """Return the line that does the same in a shell."""
        stated = {name: value for name, value in self.environment.items() if VARIABLES.get(name) == value}
        front = ["env", *(f"{name}={value}" for name, value in stated.items())] if stated else []
        return shlex.join([*front, *self.command])


def launch(
    options: Verrou, launcher: str, mode: str, seed: int, run: str, folder: Path, here: Path | None = None
) -> Launch:
    """Return how one run is launched.

    Args:
        seed: The campaign's.
        folder: Of the runs, absolute.
        here: Folder from which the model is imported; None: the current one.
    """
    if launcher == NATIVE:
        program = valgrind(options, mode, seed, run, folder) + worker(sys.executable, folder, run)
        return Launch(program, native_variables(os.environ))
    program = valgrind(options, mode, seed, run, CAMPAIGN) + worker(PYTHON, CAMPAIGN, run)
    command = inside(options, launcher, program, VARIABLES, folder, here or Path.cwd(), _user())
    return Launch(command, _engine_environment())


def _engine_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def _user() -> tuple[int, int]:
    return os.getuid(), os.getgid()
