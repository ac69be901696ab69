"""A stand-in for Valgrind with Verrou, for tests: NOT Verrou. It rounds up or down with the processor's own switch.

`install(folder)` makes a tree like that of an installation: bin/valgrind is a script that takes Verrou's options and
runs the program after them; libexec/valgrind/verrouCBinding.so is the library of standin_verrou.c. `Forked` starts
runs without a new interpreter, from a server that has imported torch once.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
SCRIPT = """\
#!/bin/sh
# A stand-in for valgrind --tool=verrou, for tests.
here=$(cd "$(dirname "$0")/.." && pwd)
for option in "$@"; do
  case "$option" in
    --version) echo "valgrind-0.standin"; exit 0;;
    --rounding-mode=*) export STANDIN_MODE="${option#*=}"; shift;;
    --vr-seed=*) export STANDIN_SEED="${option#*=}"; shift;;
    --*) shift;;
    *) break;;
  esac
done
echo "==$$== Using Valgrind-0.standin and nothing else" >&2
export LD_PRELOAD="$here/libexec/valgrind/vgpreload_standin.so"
exec "$@"
"""


def install(folder: Path) -> Path:
    """Make the tree and return its bin, for PATH."""
    libraries, programs = folder / "libexec" / "valgrind", folder / "bin"
    libraries.mkdir(parents=True)
    programs.mkdir()
    command = ["cc", "-shared", "-fPIC", "-O1", "-frounding-math", str(SOURCE), "-lm"]
    subprocess.run([*command, "-o", str(libraries / "verrouCBinding.so")], check=True)
    shutil.copy(libraries / "verrouCBinding.so", libraries / "vgpreload_standin.so")
    (programs / "valgrind").write_text(SCRIPT)
    (programs / "valgrind").chmod(0o755)
    return programs


def option(command: list[str], name: str) -> str:
    """Return the value of an option of Verrou."""
    return next(part.partition("=")[2] for part in command if part.startswith(f"--{name}="))


def child(command: list[str], environment: dict[str, str], log: str, libraries: str) -> None:
    """Be one run: what the script and a new interpreter would do."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment, LD_PRELOAD=f"{libraries}/vgpreload_standin.so")
    os.environ["STANDIN_MODE"] = option(command, "rounding-mode")
    os.environ["STANDIN_SEED"] = environment.get("STANDIN_SEED") or option(command, "vr-seed")
    sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
    os.write(2, b"==1== Using Valgrind-0.standin and nothing else\n")
    from mcaprobe import verrou_worker
    from tests.mcaprobe.standin_faults import act

    folder, run = command[-2:]
    act(environment, run)
    code = verrou_worker.main([folder, run])
    sys.stderr.flush()
    os._exit(code)


class Forked:
    """A process as subprocess.Popen has it, forked from a server that has imported torch."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mcaprobe.verrou_worker"])

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, libraries: Path) -> None:
        target = (command, environment, str(log), str(libraries))
        self._process = self.context.Process(target=child, args=target, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("standin", timeout or 0.0)
        return self._process.exitcode
