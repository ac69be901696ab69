"""Which options does a campaign under Verrou have, and which commands will it run?"""

import argparse
from pathlib import Path

from mcaprobe.errors import InputError
from mcaprobe.verrou import AUTO, LAUNCHERS, Verrou

EMULATOR, VERROU = "emulator", "verrou"
_OWN = ("launcher", "engine", "image", "engine_option", "jobs", "rounding_mode", "exclude", "source", "exclude_math")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("Verrou (each sample in a process of its own)")
    group.add_argument("--backend", choices=[EMULATOR, VERROU], default=EMULATOR,
                       help="emulator: this process rounds (default); verrou: Valgrind's Verrou rounds every "
                       "instruction, hundreds of times slower")  # fmt: skip
    group.add_argument("--launcher", choices=[*LAUNCHERS, AUTO], help="where Verrou is (default auto: what is there)")
    group.add_argument("--image", metavar="IMAGE", help="with Verrou, torch and mcaprobe (default mcaprobe-verrou)")
    group.add_argument("--engine", metavar="COMMAND", help="engine with its options, such as 'podman --runtime runc'")
    group.add_argument("--engine-option", action="append", metavar="OPTION",
                       help="option of the engine's run or exec, such as --engine-option=--network=host; "
                       "may be repeated")  # fmt: skip
    group.add_argument("--jobs", type=int, metavar="N", help="samples at once (default: what cores and memory allow)")
    group.add_argument("--rounding-mode", metavar="MODE", help="of Verrou: random (default), nearness, prandom, "
                       "random_det, ..., upward, downward, toward_zero, farthest, float")  # fmt: skip
    group.add_argument("--exclude", type=Path, action="append", metavar="FILE",
                       help="Verrou's list of functions that are not perturbed; may be repeated")  # fmt: skip
    group.add_argument("--source", type=Path, action="append", metavar="FILE",
                       help="Verrou's list of the only source lines that are perturbed; may be repeated")  # fmt: skip
    group.add_argument("--exclude-math", action="store_true", help="leave vector math (exp, tanh, ...) unperturbed")
    group.add_argument("--print-command", action="store_true", help="print the command of each run and run nothing")


def options(args: argparse.Namespace) -> Verrou | None:
    """Return how the campaign runs under Verrou; None where it is emulated."""
    if args.backend != VERROU:
        given = [name for name in _OWN if getattr(args, name)]
        if given or args.print_command:
            name = (given or ["print_command"])[0].replace("_", "-")
            raise InputError(f"--{name} is an option of the backend verrou: add --backend verrou.")
        return None
    return Verrou(
        launcher=args.launcher or AUTO, engine=args.engine, image=args.image,
        engine_options=tuple(args.engine_option or ()), jobs=args.jobs, exclude=tuple(args.exclude or ()),
        source=tuple(args.source or ()), exclude_math=args.exclude_math,
    )  # fmt: skip


def mode(args: argparse.Namespace) -> str:
    """Return the mode that was asked for."""
    if args.mode and args.rounding_mode and args.mode != args.rounding_mode:
        raise InputError(f"--mode {args.mode} and --rounding-mode {args.rounding_mode} contradict each other.")
    return args.rounding_mode or args.mode or "random"


def show(args: argparse.Namespace) -> int:
    """Print the command of each run, one a line; return the exit code."""
    from mcaprobe.checks import check_counts
    from mcaprobe.launchers import choose, launch
    from mcaprobe.verrou import check_mode, runs_of

    verrou = options(args)
    if verrou is None:
        raise InputError("--print-command is an option of the backend verrou: add --backend verrou.")
    check_mode(mode(args))
    check_counts(args.samples, args.seed)
    launcher = choose(verrou) if verrou.launcher == AUTO else verrou.launcher
    folder = (args.out / VERROU).absolute()
    for run in runs_of(args.samples):
        print(launch(verrou, launcher, mode(args), args.seed, run, folder).text())
    return 0
