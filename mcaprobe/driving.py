"""What becomes of units that were given out? Each is taken when its folder is whole, given out again when it is lost.

Nothing is believed of what a worker says but its failure: a unit is done when its results are on the disk and whole.
So a unit that is lost, repeated, or run twice at once does no harm.
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from mcaprobe.errors import InputError, RunFailure
from mcaprobe.executors import Submits

Key = TypeVar("Key", bound=Hashable)
MANY = 10_000  # units that are given out at once


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended in its worker.

    Attributes:
        error: One sentence; None where it ended well.
        final: Whether another try would end the same way.
    """

    error: str | None = None
    final: bool = False


def attempt(work: Callable[[Any], None], unit: Any) -> Outcome:
    """Run a unit in its worker; whatever it raises becomes a sentence, since engines change exceptions on the way."""
    try:
        work(unit)
    except Exception as error:  # whatever the user's model, the machine or the file system does
        if out_of_memory(error):
            return Outcome("its worker ran out of memory")
        if isinstance(error, (InputError, RunFailure)):
            return Outcome(str(error), final=not any(isinstance(cause, OSError) for cause in causes(error)))
        traceback.print_exc(file=sys.stderr)  # into the worker's log
        return Outcome(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return Outcome()


def causes(error: BaseException) -> Iterator[BaseException]:
    """Return an error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what it was raised from, is a lack of memory: Python's, torch's or a device's."""
    return any(
        isinstance(cause, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(cause)
        for cause in causes(error)
    )


def drive(
    executor: Submits, work: Callable[[Any], None], units: Mapping[Key, Any], done: Callable[[Key], bool],
    say: Callable[[str], None], tries: int,
) -> dict[Key, str]:  # fmt: skip
    """Give out all units, and those that are lost again; return why each unit failed that is not done in the end.

    Args:
        work: Called with a unit in a worker, by name: a function at the top of a module.
        units: What is pickled for each, in the order in which they are given out.
        done: Asked after each try whether the results of a unit are there and whole; takes them.
        say: Told of each loss.
        tries: How often a unit is given out in all.
    """
    todo = deque(units)
    tried = dict.fromkeys(units, 0)
    failed: dict[Key, str] = {}
    running: dict[Future[Any], Key] = {}
    window = getattr(executor, "window", MANY)
    try:
        while todo or running:
            while todo and len(running) < window:
                key = todo.popleft()
                tried[key] += 1
                running[_submitted(executor, work, units[key])] = key
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                outcome = _outcome(future)
                if done(key):
                    continue
                why = outcome.error or "it ended without its results"
                if outcome.final or tried[key] >= tries:
                    failed[key] = why
                else:
                    say(f"{key} is given out again: {why.rstrip('.')}.")
                    todo.append(key)
    except BaseException:
        for future in running:
            future.cancel()
        raise
    return failed


def _submitted(executor: Submits, work: Callable[[Any], None], unit: Any) -> Future[Any]:
    try:
        return executor.submit(attempt, work, unit)
    except Exception as error:  # a scheduler that refuses, a pool that is broken
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def _outcome(future: Future[Any]) -> Outcome:
    """Return how a unit ended; what the engine itself raises is a loss."""
    try:
        outcome = future.result()
    except (Exception, CancelledError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return Outcome(f"its worker was lost ({type(error).__name__}{': ' + first if first else ''})")
    return outcome if isinstance(outcome, Outcome) else Outcome(f"its worker returned {outcome!r}")
