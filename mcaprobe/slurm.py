"""How does Slurm run units? Submissions are gathered into array jobs, as large as the scheduler takes, by submitit."""

from __future__ import annotations

import re
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import submitit

from mcaprobe.errors import InputError

GATHER = 0.3  # seconds in which further submissions join an array
POLL = 1.0  # seconds between two looks at the queue
GRACE = 15.0  # seconds that a result may take to appear on this machine when its job has left the queue
MINUTES = 60  # that a unit may take, where the options do not say
LARGEST = 1000  # tasks of an array where the scheduler does not say


class ArrayJobs(Executor):
    """An executor whose units are the tasks of Slurm's array jobs.

    A task that leaves the queue without a result (cancelled, out of memory or time, its node gone) is an exception of
    its future. What the scheduler refuses waits while other tasks run, and is an exception when none does.

    Args:
        folder: For scripts, logs and results, on a disk that all nodes see.
        workers: Tasks of an array that run at once; None: as Slurm has it.
        options: Of submitit, such as slurm_partition, timeout_min (60 where it is not given), mem_gb, cpus_per_task.
    """

    def __init__(self, folder: Path, workers: int | None, options: Mapping[str, Any]) -> None:
        self._jobs: dict[str, tuple[submitit.Job[Any], Future[Any]]] = {}
        self._left: dict[str, float] = {}
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._changed = Condition()
        self._closing = False
        self.largest = array_limit()
        parallel = {} if workers is None else {"slurm_array_parallelism": workers}
        try:
            self._engine = submitit.AutoExecutor(folder=folder, cluster="slurm")
            self._engine.update_parameters(**{"name": "mcaprobe", "timeout_min": MINUTES, **parallel, **options})
        except (NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise InputError(f"submitit refuses the options {dict(options)} of Slurm: {error}") from error
        self._thread = Thread(target=self._serve, name="slurm", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            self._waiting.append((future, function, args))
            self._changed.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._jobs:
            _call("scancel", *sorted({name.partition("_")[0] for name in self._jobs}))
        for future in [*(future for _, future in self._jobs.values()), *(entry[0] for entry in self._waiting)]:
            future.cancel()

    def _serve(self) -> None:
        while not self._closing:
            with self._changed:
                self._changed.wait(POLL if self._jobs else None if not self._waiting else GATHER)
            time.sleep(GATHER)
            while self._waiting and not self._closing and self._send():
                pass
            self._collect()

    def _send(self) -> bool:
        """Submit one array of what waits; return whether the scheduler took it."""
        part = [self._waiting.popleft() for _ in range(min(self.largest, len(self._waiting)))]
        live = [entry for entry in part if not entry[0].cancelled()]
        if not live:
            return True
        try:
            jobs = self._engine.map_array(_call_one, [(function, args) for _, function, args in live])
        except Exception as error:  # sbatch said no, or is not there
            why = _first(error)
            if self._jobs and "limit" in why.lower():  # a limit on jobs: wait until some of ours have ended
                self._waiting.extendleft(reversed(live))
                return False
            for future, _, _ in live:
                future.set_exception(RuntimeError(f"Slurm refuses the job: {why}"))
            return True
        for job, (future, _, _) in zip(jobs, live, strict=True):
            if future.set_running_or_notify_cancel():
                self._jobs[job.job_id] = (job, future)
            else:
                _call("scancel", job.job_id)
        return True

    def _collect(self) -> None:
        """Settle the futures of the tasks that have ended."""
        queued = _queued() if self._jobs else set()
        for name, (job, future) in list(self._jobs.items()):
            if job.paths.result_pickle.exists():
                error = job.exception()
                future.set_result(job.result()) if error is None else future.set_exception(error)
            elif queued is None or name in queued:
                self._left.pop(name, None)
                continue
            elif time.monotonic() - self._left.setdefault(name, time.monotonic()) < GRACE:
                continue
            else:
                future.set_exception(RuntimeError(f"job {name} left Slurm's queue without a result{_last(job)}"))
            del self._jobs[name]


def _call_one(call: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    function, args = call
    return function(*args)


def array_limit() -> int:
    """Return the most tasks that this Slurm takes in one array.

    Raises:
        InputError: Slurm's commands are not there, or its controller does not answer.
    """
    done = _call("scontrol", "show", "config")
    if done.returncode:
        raise InputError(f"Slurm's controller does not answer: {done.stderr.strip().splitlines()[-1:] or ['']}.")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1]) - 1) if found else LARGEST


def _queued() -> set[str] | None:
    """Return the names of our tasks that wait or run; None where the controller does not answer now."""
    done = _call("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T")
    if done.returncode:
        return None
    live = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "RESIZING", "STOPPED",
            "SPECIAL_EXIT", "REQUEUE_HOLD", "REQUEUE_FED", "SIGNALING", "STAGE_OUT")  # fmt: skip
    lines = (line.split() for line in done.stdout.splitlines())
    return {parts[0] for parts in lines if len(parts) == 2 and parts[1] in live}


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise InputError(f"The executor slurm needs Slurm's command {command[0]}, which is not here.") from error
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "it took more than a minute")


def _first(error: BaseException) -> str:
    """Return what sbatch printed, or the first line of an error."""
    text = getattr(error, "stderr", None) or str(error)
    lines = (text.decode() if isinstance(text, bytes) else str(text)).strip().splitlines()
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else type(error).__name__)


def _last(job: submitit.Job[Any]) -> str:
    """Return the last line of a task's error stream as the end of a sentence."""
    text = job.stderr()
    lines = [line for line in (text or "").strip().splitlines() if line.strip()]
    return f" ({lines[-1].strip()[:200]})" if lines else ""
