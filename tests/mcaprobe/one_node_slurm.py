"""A Slurm of one node on this machine, for the time of a test: munge, a controller and a daemon on free ports."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MaxArraySize=4
KillWait=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class CannotStart(RuntimeError):
    """Why there is no Slurm here."""


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def start(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CannotStart(f"{command[0]} does not start: {(done.stderr or done.stdout).strip()[:200]}")


@contextmanager
def slurm() -> Iterator[Path]:
    """Yield the configuration file of a Slurm that answers; its daemons are gone behind the block."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise CannotStart(f"there is no {missing[0]} (Debian: apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        raise CannotStart("its daemons need root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key, config, munge = folder / "munge/key", folder / "slurm.conf", folder / "munge"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, daemon = free_ports()
    host = socket.gethostname().partition(".")[0]
    config.write_text(CONFIG.format(host=host, folder=folder, controller=controller, daemon=daemon))
    try:
        start("munged", "--force", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
              f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
        start("slurmctld", "-f", str(config))
        start("slurmd", "-f", str(config))
        expect_idle(config)
        yield config
    finally:
        for pid in (folder / "slurmd.pid", folder / "slurmctld.pid", munge / "pid"):
            stop(pid)
        shutil.rmtree(folder, ignore_errors=True)


def expect_idle(config: Path) -> None:
    environment = {**os.environ, "SLURM_CONF": str(config)}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        told = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True)
        if told.stdout.strip() == "idle":
            return
        time.sleep(0.3)
    raise CannotStart(f"its node is not idle after 30 s but {told.stdout.strip() or told.stderr.strip()!r}")


def stop(pid_file: Path) -> None:
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def configuration() -> Iterator[Path]:
    """The configuration file of a Slurm that runs; skips where it cannot start."""
    try:
        with slurm() as config:
            yield config
    except CannotStart as error:
        pytest.skip(f"Slurm cannot start here: {error}")
