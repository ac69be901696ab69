"""Where do work units run? In this process, in processes, on Dask or on Slurm: whatever has `submit()` runs them."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock, Thread, local
from typing import Any, Protocol

from mcaprobe.errors import InputError
from mcaprobe.models import nearest

LOCAL, PROCESSES, DASK, SLURM = "local", "processes", "dask", "slurm"
NAMES = (LOCAL, PROCESSES, DASK, SLURM)
TRIES = 3
_INSTALL = "which is not installed: pip install 'mcaprobe[cluster]'."


class Submits(Protocol):
    """What runs units: `concurrent.futures.Executor`, `dask.distributed`'s `Client.get_executor()`, and the like."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Start `function(*args)` somewhere and return its future."""


@dataclass(frozen=True)
class Engine:
    """Where the units of a campaign run, and how often a lost one is given out again.

    Args:
        kind: One of NAMES, or an object with `submit()`, which is used as it is and not closed.
        workers: Units at once; None: for processes the number of processors, elsewhere as the engine has it.
        options: What the engine is made with, passed on as it is. dask: `address` or `scheduler_file` of a scheduler
            that runs, else of `distributed.LocalCluster`. slurm: of submitit, such as `slurm_partition`, `timeout_min`,
            `mem_gb`, `cpus_per_task`.
        tries: How often a unit is given out in all before it counts as failed.
        keeper: Of an executor that several campaigns share; see `kept`.
    """

    kind: str | Submits = LOCAL
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tries: int = TRIES
    keeper: Keeper | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.kind, str) and self.kind not in NAMES:
            raise InputError(f"Expected an executor among {', '.join(NAMES)}, got {self.kind!r}: "
                             f"{nearest(self.kind, list(NAMES))}.")  # fmt: skip
        if not isinstance(self.kind, str) and not callable(getattr(self.kind, "submit", None)):
            raise InputError(f"Expected an executor with submit(), got {type(self.kind).__name__}.")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"Expected at least 1 worker, got {self.workers}.")
        if self.tries < 1:
            raise InputError(f"Expected at least 1 try, got {self.tries}.")
        if self.options and self.kind in (LOCAL, PROCESSES):
            raise InputError(f"The executor {self.kind} has no option {sorted(self.options)[0]}: it has workers only.")
        if self.options and not isinstance(self.kind, str):
            raise InputError("An executor that is there already takes no options.")
        if self.kind == LOCAL and self.workers not in (None, 1):
            raise InputError(f"The executor local is this process: it has 1 worker, not {self.workers}.")

    @property
    def name(self) -> str:
        """Its name in sentences and manifests."""
        return self.kind if isinstance(self.kind, str) else type(self.kind).__name__

    @property
    def local(self) -> bool:
        """Whether this process runs the units."""
        return self.kind == LOCAL

    def at_once(self) -> int | None:
        """Return how many units run at once on this machine; None where others decide or it is another machine."""
        if self.local:
            return 1
        return (self.workers or len(os.sched_getaffinity(0))) if self.kind == PROCESSES else self.workers

    @contextmanager
    def kept(self, folder: Path) -> Iterator[Engine]:
        """Yield the same engine, whose workers stay for all campaigns of the block.

        Args:
            folder: As of `opened`.
        """
        with ExitStack() as block:
            yield replace(self, keeper=Keeper(self, folder, block))

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Submits]:
        """Yield the executor; behind the block nothing of it runs any more.

        Args:
            folder: For the files that the engine itself needs; seen by all machines.
        Raises:
            InputError: a package is missing, or the engine refuses its options.
        """
        if self.keeper is not None:
            yield self.keeper.executor()
        elif not isinstance(self.kind, str):
            yield self.kind
        elif self.kind == LOCAL:
            yield ThisProcess()
        elif self.kind == PROCESSES:
            with Processes(self.at_once() or 1) as pool:
                yield pool
        elif self.kind == DASK:
            with _dask(self.workers, self.options) as pool:
                yield pool
        else:
            with _slurm(folder, self.workers, self.options) as pool:
                yield pool


class Keeper:
    """An executor that is opened when it is asked for first, and stays open until the block around it ends."""

    def __init__(self, engine: Engine, folder: Path, block: ExitStack) -> None:
        self._engine, self._folder, self._block = engine, folder, block
        self._executor: Submits | None = None

    def executor(self) -> Submits:
        """Return the executor."""
        if self._executor is None:
            self._executor = self._block.enter_context(self._engine.opened(self._folder))
        return self._executor


class ThisProcess(Executor):
    """Runs a unit when it is submitted. `window`: units that are given out at once."""

    window = 1

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:  # told by the future, as any executor does
            future.set_exception(error)
        return future


class Processes(Executor):
    """Worker processes of this machine; one that dies loses its unit only.

    Each of `workers` threads has a pool of one process (a pool of many is broken as a whole when one of its processes
    dies). Processes are spawned, since a forked one may hold the locks of threads that it does not have.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="unit")
        self._own = local()
        self._pools: list[ProcessPoolExecutor] = []
        self._lock = Lock()
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        return self._threads.submit(self._run, function, args, options)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        pool = getattr(self._own, "pool", None) or self._fresh()
        try:
            return pool.submit(function, *args, **options).result()
        except BrokenExecutor:
            self._own.pool = None
            raise

    def _fresh(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._closed:
                raise BrokenExecutor("the processes are closed")
            spawn = get_context("spawn")
            pool = self._own.pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_the_parent)
            self._pools.append(pool)
        return pool

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        for pool in self._pools:
            if cancel_futures:
                for process in list((getattr(pool, "_processes", None) or {}).values()):
                    process.terminate()
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        self.shutdown(cancel_futures=error is not None)
        return None


def end_with_the_parent() -> None:
    """Let this process end when the one that started it has ended, however: a killed one cannot tell its workers."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def _dask(workers: int | None, options: Mapping[str, Any]) -> Iterator[Submits]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(f"The executor dask is the package dask[distributed], {_INSTALL}") from error
    there = {"address", "scheduler_file"} & options.keys()
    if there and (workers is not None or len(options) > 1):
        raise InputError(f"A Dask scheduler that runs already ({there.pop()}) takes neither workers nor other options.")
    # One unit a worker: a worker that dies takes down what runs in it.
    made = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1",
            "dashboard_address": None, **options}  # fmt: skip
    try:
        cluster = None if there else LocalCluster(**made)
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"Dask refuses the options {dict(options)}: {error}") from error
    try:
        try:
            client = Client(cluster) if cluster is not None else Client(**options)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"No Dask scheduler answers at {dict(options)}: {error}") from error
        with client:
            yield client.get_executor(pure=False)
    finally:
        if cluster is not None:
            cluster.close()


@contextmanager
def _slurm(folder: Path, workers: int | None, options: Mapping[str, Any]) -> Iterator[Submits]:
    try:
        import submitit  # noqa: F401  (mcaprobe.slurm needs it)
    except ImportError as error:
        raise InputError(f"The executor slurm is the package submitit, {_INSTALL}") from error
    from mcaprobe.slurm import ArrayJobs

    with ArrayJobs(folder / SLURM, workers, options) as jobs:
        yield jobs


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return the options of texts such as `timeout_min=60`; numbers, True, False and None are read as such.

    Raises:
        InputError: a text is not of the form KEY=VALUE, or a key comes twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier()):
            raise InputError(f"Expected an option of the executor as KEY=VALUE, got {text!r}.")
        if key in options:
            raise InputError(f"The option {key} of the executor is given twice.")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options
