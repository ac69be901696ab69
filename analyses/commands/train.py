"""`python -m analyses train TASK`: train one of the networks of the experiments."""

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analyses import provenance
from analyses.commands import train_tasks
from analyses.training.loop import Settings, Trainer
from mcaprobe.errors import InputError

ENDING = """
The result is the same bits for the same seed, settings, machine and versions, also when a run is killed and
resumed."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand, one of its own for each task, and their options."""
    p = subparsers.add_parser("train", help="train a network of the experiments")
    tasks = p.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, task in train_tasks.TASKS.items():
        q = tasks.add_parser(
            name,
            help=task.about.splitlines()[0],
            description=task.about + ENDING,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        task.add_options(q)
        add_common(q, task.defaults)
        q.set_defaults(function=train)


def add_common(p: argparse.ArgumentParser, defaults: Settings) -> None:
    """Add the options that every task has."""
    p.add_argument("--steps", type=int, default=defaults.steps, help="optimizer steps (%(default)s)")
    p.add_argument("--seed", type=int, default=defaults.seed, help="seed of weights and samples (%(default)s)")
    p.add_argument("--batch", type=int, default=defaults.batch, help="samples a step (%(default)s)")
    p.add_argument("--learning-rate", type=float, default=defaults.learning_rate, help="peak (%(default)s)")
    p.add_argument(
        "--precision", choices=["float32", "bfloat16"], default=defaults.precision,
        help="of the activations (%(default)s)",
    )  # fmt: skip
    p.add_argument("--threads", type=int, default=defaults.threads, help="threads of torch (%(default)s)")
    p.add_argument(
        "--compile", action="store_true", help="fuse with torch.compile: twice as fast, needs a C++ compiler"
    )
    p.add_argument("--prefetch", type=int, default=0, help="batches made ahead in one more thread (%(default)s)")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train (%(default)s)")
    p.add_argument("--every", type=float, default=120.0, help="seconds between checkpoints (%(default)s)")
    p.add_argument("--out", type=Path, help="the checkpoint to write (default: where the experiments look for it)")
    p.add_argument("--resume", action="store_true", help="go on from the state beside --out, where there is one")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    if defaults.check_every:
        p.add_argument(
            "--check-every", type=int, default=defaults.check_every,
            help="steps between two looks at the validation data, of which the best network is kept (%(default)s)",
        )  # fmt: skip
        p.add_argument(
            "--patience", type=int, default=defaults.patience,
            help="looks without a better one after which training stops; 0: it never does (%(default)s)",
        )  # fmt: skip


def common_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that every task has; InputError where a number makes no sense."""
    for name in ("steps", "batch", "threads", "check_every"):
        if getattr(args, name, 1) < 1:
            raise InputError(f"Expected --{name.replace('_', '-')} of at least 1, got {getattr(args, name)}.")
    for name in ("seed", "prefetch", "patience"):
        if getattr(args, name, 0) < 0:
            raise InputError(f"Expected --{name} of at least 0, got {getattr(args, name)}.")
    if not args.learning_rate > 0:
        raise InputError(f"Expected a positive --learning-rate, got {args.learning_rate}.")
    if args.out is not None and args.out.suffix != ".safetensors":
        raise InputError(f"Expected --out to end in .safetensors, got {args.out}.")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("Expected a CUDA device for --device cuda, found none.")
    return {field.name: getattr(args, field.name) for field in fields(Settings) if hasattr(args, field.name)}


def command_of(task: str, settings: Settings, own: str) -> str:
    """Return the command that makes this checkpoint, with every option that decides its bits."""
    options = f"--steps {settings.steps} --seed {settings.seed} --batch {settings.batch}"
    options += f" --learning-rate {settings.learning_rate:g} --precision {settings.precision}"
    options += f" --threads {settings.threads}" + (" --compile" if settings.compile else "")
    if settings.check_every:
        options += f" --check-every {settings.check_every} --patience {settings.patience}"
    return f"python -m analyses train {task} {own}{' ' if own else ''}{options}"


def record_of(job: train_tasks.Job, name: str, trainer: Trainer, loss: float) -> dict[str, object]:
    """Return what the header of a checkpoint says about its training."""
    about: dict[str, object] = {
        "command": command_of(name, job.settings, job.own_options),
        "training data": job.data,
        "steps done": trainer.step,
        "loss": round(loss, 5),
        "settings": json.loads(job.settings.as_json()),
    }
    if trainer.checks:
        best = min(trainer.checks)
        about["validation"] = {"losses": [round(v, 5) for v in trainer.checks], "best look": trainer.checks.index(best)}
    return provenance.stamp() | about


def train(args: argparse.Namespace) -> int:
    """Train, show progress, leave the checkpoint at --out and the state to resume from beside it."""
    job = train_tasks.TASKS[args.task].job(args, common_of(args))
    settings, out = job.settings, job.out if args.out is None else args.out
    torch.set_num_threads(settings.threads)
    state = out.with_suffix(".state")
    console = Console(quiet=args.quiet)
    trainer = Trainer(settings, job.task, torch.device(args.device))
    if args.resume and state.exists():
        trainer.load_state(state)
        console.print(f"Resuming at step {trainer.step} of {settings.steps}.")
    with _bar(console) as progress:
        mean = _Mean(progress, settings.steps, trainer)

        def save() -> None:
            trainer.save_state(state)
            job.save(out, trainer.result(), record_of(job, args.task, trainer, mean.value))

        trainer.run(args.prefetch, args.every, save, mean)
    why = "The validation loss got no better. " if trainer.step < settings.steps else ""
    console.print(f"{why}The network is at {out}; {state} is the state to resume from.")
    return 0


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


class _Mean:
    """Show a running mean of the loss, and every 50 steps a line with it and the last look at the validation data."""

    def __init__(self, progress: Progress, steps: int, trainer: Trainer) -> None:
        self.progress, self.trainer = progress, trainer
        self.bar = progress.add_task("training", total=steps, completed=trainer.step)
        self.value = 0.0
        self._seen = False

    def __call__(self, step: int, loss: float) -> None:
        self.value = 0.98 * self.value + 0.02 * loss if self._seen else loss
        self._seen = True
        self.progress.update(self.bar, completed=step + 1, description=f"loss {self.value:.4f}")
        if (step + 1) % 50 == 0:
            checks = self.trainer.checks
            last = f", validation {checks[-1]:.4f} (best {min(checks):.4f})" if checks else ""
            self.progress.console.print(f"{provenance.now()} step {step + 1} loss {self.value:.4f}{last}")
