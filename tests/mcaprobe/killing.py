"""Run a campaign again and again in child processes and kill each at a random moment. A program, not a test.

usage: python -m tests.mcaprobe.killing FOLDER KILLS

This process only forks: the campaign's threads live in the children. A child writes a byte into a pipe before and
after whatever it does to the disk; it is killed a moment after a random one of them, so that the
moments do not depend on how busy the machine is. Prints JSON: for each kill the chunks that were started before and
after it, and whether the child was still running.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the children would import it, each for itself

import mcaprobe.api
from mcaprobe.observer import Observer
from tests.mcaprobe import small_models as models

SAMPLES, BLOCK = 5, 1


class Log(Observer):
    """Writes a line for each chunk that starts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def chunk(self, first: int, last: int) -> None:
        with self.path.open("a") as file:
            file.write(f"{first}\n")


def campaign(out: Path, log: Path) -> None:
    """Run or resume the campaign."""
    torch.set_num_threads(1)
    mcaprobe.api.run(
        models.build_pooled(), models.line(4000), out=out, samples=SAMPLES, block=BLOCK, chunk=BLOCK, threads=1,
        keep_moments=["norm", ":output.labels"], keep_samples=["conv2", ":output.labels"], metrics=[models.mean_of],
        observer=Log(log),
    )  # fmt: skip


def tell(pipe: int) -> None:
    """Write a byte before and after each flush and rename of this process."""
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def told(*args, real=real):
            os.write(pipe, b".")
            result = real(*args)
            os.write(pipe, b".")
            return result

        setattr(os, name, told)


def child(out: Path, log: Path) -> tuple[int, int]:
    """Start the campaign in a child; return its process id and the pipe in which its steps can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            tell(writing)
            campaign(out, log)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return pid, reading


def follow(pipe: int, steps: int | None = None) -> int:
    """Read steps until there are as many, or until the child is gone; return how many there were."""
    count = 0
    while (steps is None or count < steps) and os.read(pipe, 1):
        count += 1
    return count


def finish(out: Path, log: Path) -> int:
    """Run the campaign to its end in a child; return its steps."""
    pid, pipe = child(out, log)
    steps = follow(pipe)
    os.close(pipe)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"The campaign in {out} did not end well.")
    return steps


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    steps = finish(folder / "fresh", folder / "fresh.log")
    chance = random.Random(20)
    trials = []
    for i in range(kills):
        out, log = folder / str(i), folder / f"{i}.log"
        pid, pipe = child(out, log)
        step = follow(pipe, chance.randint(1, steps))
        time.sleep(chance.random() * 0.002)
        os.kill(pid, signal.SIGKILL)
        os.close(pipe)
        killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
        before = log.read_text().split() if log.exists() else []
        finish(out, log)
        trials.append(
            {
                "killed": killed,
                "step": step,
                "before": before,
                "after": log.read_text().split()[len(before) :],
            }
        )
    print(json.dumps({"steps": steps, "trials": trials}))


if __name__ == "__main__":
    main()
