"""Which command runs a program inside an image? docker, podman and apptainer; nothing here runs anything."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcaprobe.verrou import APPTAINER, DOCKER, PODMAN, Verrou

# Where the run's folder and the user's code are inside.
CAMPAIGN, CODE = "/campaign", "/code"
IMAGES = {DOCKER: "mcaprobe-verrou", PODMAN: "mcaprobe-verrou", APPTAINER: "mcaprobe-verrou.sif"}
PYTHON = "python3"


def image_of(options: Verrou, launcher: str) -> str:
    """Return the image that is asked for, or the launcher's default."""
    return options.image or IMAGES[launcher]


def engine_of(options: Verrou, launcher: str) -> list[str]:
    """Return the engine's command with its global options."""
    return shlex.split(options.engine) if options.engine else [launcher]


def inside(
    options: Verrou, launcher: str, program: Sequence[str], environment: Mapping[str, str], folder: Path, code: Path,
    user: tuple[int, int],
) -> list[str]:  # fmt: skip
    """Return the command that runs `program` inside the image.

    There is no network. The folder of the runs is the only place that can be written, apart from a /tmp in memory;
    the folder of the code, from which the model is imported, can be read.

    Args:
        folder: Of the runs, absolute; CAMPAIGN inside.
        code: Absolute; CODE inside.
        user: Numbers of user and group who own the files; root runs as the user that the image names.
    """
    variables = {**environment, "PYTHONPATH": CODE, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"}
    build = _apptainer if launcher == APPTAINER else _oci
    return build(options, launcher, list(program), variables, folder, code, user)


def _oci(
    options: Verrou, launcher: str, program: list[str], variables: Mapping[str, str], folder: Path, code: Path,
    user: tuple[int, int],
) -> list[str]:  # fmt: skip
    command = [*engine_of(options, launcher), "run", "--rm", "--read-only", "--tmpfs=/tmp"]
    if not _states_network(options.engine_options):
        command.append("--network=none")
    if user[0] != 0:
        command += [f"--user={user[0]}:{user[1]}", *(["--userns=keep-id"] if launcher == PODMAN else [])]
    command += [f"--volume={folder}:{CAMPAIGN}", f"--volume={code}:{CODE}:ro", f"--workdir={CODE}"]
    command += [f"--env={name}={value}" for name, value in variables.items()]
    return [*command, *options.engine_options, f"--entrypoint={program[0]}", image_of(options, launcher), *program[1:]]


def _apptainer(
    options: Verrou, launcher: str, program: list[str], variables: Mapping[str, str], folder: Path, code: Path,
    user: tuple[int, int],
) -> list[str]:  # fmt: skip
    command = [*engine_of(options, launcher), "exec", "--containall"]
    if not _states_network(options.engine_options):
        command += ["--net", "--network=none"]
    command += [f"--bind={folder}:{CAMPAIGN}", f"--bind={code}:{CODE}:ro", f"--pwd={CODE}"]
    command += [f"--env={name}={value}" for name, value in variables.items() if name != "HOME"]  # its own option
    return [*command, *options.engine_options, image_of(options, launcher), *program]


def _states_network(engine_options: Sequence[str]) -> bool:
    return any(option.partition("=")[0] in ("--network", "--net") for option in engine_options)
