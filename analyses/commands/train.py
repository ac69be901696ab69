"""`python -m analyses train tissue`: train the demo's network on the template."""

import argparse
import json
from pathlib import Path

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
from analyses.models.checkpoint import Hyperparameters, save_network
from analyses.models.demo import WEIGHTS
from analyses.training.loop import Trainer, TrainingSettings
from analyses.training.template import SOURCE, load_template
from mcaprobe.errors import InputError

DEFAULTS = TrainingSettings()
DESCRIPTION = """\
Train FastSurferVINN (reduced width) to segment background, CSF, grey and white matter.
The only training image is the MNI152 template that nilearn ships; shapes and contrasts are randomised.
The result is the same bits for the same seed, settings, machine and versions, also when a run is
killed and resumed."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "train",
        help="train the demo's network",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("what", choices=["tissue"], help="what to train: the tissue segmentation of the demo")
    p.add_argument("--steps", type=int, default=DEFAULTS.steps, help="optimizer steps (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed of weights and heads (%(default)s)")
    p.add_argument("--batch", type=int, default=DEFAULTS.batch, help="slices a step (%(default)s)")
    p.add_argument("--filters", type=int, default=24, help="width (%(default)s)")
    p.add_argument("--interpolation-filters", type=int, default=12, help="width of the input block (%(default)s)")
    p.add_argument("--learning-rate", type=float, default=DEFAULTS.learning_rate, help="peak (%(default)s)")
    p.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the activations")
    p.add_argument("--threads", type=int, default=1, help="threads of torch (%(default)s)")
    p.add_argument(
        "--compile", action="store_true", help="fuse with torch.compile: twice as fast, needs a C++ compiler"
    )
    p.add_argument("--prefetch", type=int, default=0, help="batches made ahead in one more thread (%(default)s)")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train (%(default)s)")
    p.add_argument("--every", type=float, default=120.0, help="seconds between checkpoints (%(default)s)")
    p.add_argument("--out", type=Path, default=WEIGHTS, help="the checkpoint to write (%(default)s)")
    p.add_argument("--resume", action="store_true", help="go on from the state beside --out, where there is one")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(function=train)


def settings_of(args: argparse.Namespace) -> TrainingSettings:
    """Return the settings of the parsed arguments; InputError where a number makes no sense."""
    for name in ("steps", "batch", "filters", "interpolation_filters", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"Expected --{name.replace('_', '-')} of at least 1, got {getattr(args, name)}.")
    for name in ("seed", "prefetch"):
        if getattr(args, name) < 0:
            raise InputError(f"Expected --{name} of at least 0, got {getattr(args, name)}.")
    if not args.learning_rate > 0:
        raise InputError(f"Expected a positive --learning-rate, got {args.learning_rate}.")
    if args.out.suffix != ".safetensors":
        raise InputError(f"Expected --out to end in .safetensors, got {args.out}.")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("Expected a CUDA device for --device cuda, found none.")
    return TrainingSettings(
        steps=args.steps,
        seed=args.seed,
        batch=args.batch,
        learning_rate=args.learning_rate,
        precision=args.precision,
        threads=args.threads,
        compile=args.compile,
        sizes=Hyperparameters(filters=args.filters, interpolation_filters=args.interpolation_filters),
    )


def command_of(settings: TrainingSettings) -> str:
    """Return the command that makes this checkpoint, with every option that decides its bits."""
    options = f"--steps {settings.steps} --seed {settings.seed} --batch {settings.batch}"
    options += f" --filters {settings.sizes.filters} --interpolation-filters {settings.sizes.interpolation_filters}"
    options += f" --learning-rate {settings.learning_rate:g} --precision {settings.precision}"
    options += f" --threads {settings.threads}" + (" --compile" if settings.compile else "")
    return f"python -m analyses train tissue {options}"


def record_of(settings: TrainingSettings, step: int, loss: float) -> dict[str, object]:
    """Return what the header of a checkpoint says about its training."""
    return provenance.stamp() | {
        "command": command_of(settings),
        "training image": SOURCE.format("t1") + " with its gm and wm maps, the only one",
        "steps done": step,
        "loss": round(loss, 5),
        "settings": json.loads(settings.as_json()),
    }


def train(args: argparse.Namespace) -> int:
    """Train, show progress, leave the checkpoint at --out and the state to resume from beside it."""
    settings = settings_of(args)
    torch.set_num_threads(settings.threads)
    state = args.out.with_suffix(".state")
    console = Console(quiet=args.quiet)
    trainer = Trainer(settings, load_template(), torch.device(args.device))
    if args.resume and state.exists():
        trainer.load_state(state)
        console.print(f"Resuming at step {trainer.step} of {settings.steps}.")
    mean: float | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("training", total=settings.steps, completed=trainer.step)

        def report(step: int, loss: float) -> None:
            nonlocal mean
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            progress.update(task, completed=step + 1, description=f"loss {mean:.4f}")
            if (step + 1) % 50 == 0:
                progress.console.print(f"{provenance.now()} step {step + 1} loss {mean:.4f}")

        def save() -> None:
            trainer.save_state(state)
            save_network(args.out, trainer.network, settings.sizes, record_of(settings, trainer.step, mean or 0.0))

        trainer.run(args.prefetch, args.every, save, report)
    console.print(f"The network is at {args.out}; {state} is the state to resume from.")
    return 0
