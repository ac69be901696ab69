"""What does the user of `mcaprobe digits --decisions` read? How often each step flips, and what n supports."""

import argparse
from collections.abc import Sequence
from typing import Any

from mcaprobe.commands.parsing import ESTIMATOR_OPTIONS, stated
from mcaprobe.commands.reporting import console_for_tables, layer_table, percent
from mcaprobe.errors import InputError
from mcaprobe.flips import Decision, claim, decisions
from mcaprobe.result import Result
from mcaprobe.storage import to_json

HEADS = ("step", "decisions", "flip\n%", "flip in\n>= 1 sample %", "largest\n%")


def report(result: Result, args: argparse.Namespace) -> int:
    """Print the decisions in the form asked for; return the exit code 0."""
    refuse_others(args)
    confidence = result.estimator.confidence if args.confidence is None else args.confidence
    found = decisions(result, args.layers or "*", confidence)
    if args.json:
        print(to_json(json_of(result, found, confidence)))
    elif args.quiet:
        print(result.path)
    else:
        console = console_for_tables()
        if found:
            console.print(layer_table(found, HEADS, _cells))
        for line in sentences(result, found, confidence):
            console.print(line, markup=False, soft_wrap=True)
    return 0


def refuse_others(args: argparse.Namespace) -> None:
    """Raise InputError for an option that speaks of bits: decisions have none."""
    asked = [name for name in (*ESTIMATOR_OPTIONS, "fail_below") if name != "confidence"]
    for name in stated(args, tuple(asked)):
        raise InputError(
            f"Expected --decisions without --{name.replace('_', '-')}: decisions have a flip rate, no significant bits."
        )


def json_of(result: Result, found: Sequence[Decision], confidence: float) -> dict[str, Any]:
    """Return the JSON object of --json."""
    return {
        "exit_code": 0,
        "run": str(result.path),
        "samples": result.samples,
        "mode": result.manifest["mode"],
        "route": result.manifest["route"],
        "confidence": confidence,
        "claim": claim(result.samples, confidence),
        "decisions": [decision.as_dict() for decision in found],
    }


def sentences(result: Result, found: Sequence[Decision], confidence: float) -> list[str]:
    """Return what is said below the table."""
    if not found:
        return [
            "The run recorded no decisions among these layers: indices of poolings, labels of an output of 2 channels "
            "or more, results of argmax and topk."
        ]
    names: dict[str, tuple[str, ...]] = {decision.layer: decision.aliases for decision in found if decision.aliases}
    lines = [f"{layer} is also {', '.join(others)}." for layer, others in names.items()]
    lines.append(
        f"Flip: the decision differs from the IEEE run's, mean over decisions and n = {result.samples} samples, mode "
        f"{result.manifest['mode']}. Decisions of one network are not independent: the rate has no interval."
    )
    lines.append(claim(result.samples, confidence))
    unkept = {decision.layer for decision in found if decision.decisions and decision.largest_rate is None}
    if unkept:
        lines.append(
            f"{len(unkept)} layers kept no moments, hence do not tell their decisions apart: run with --keep-moments "
            f"'{next(iter(sorted(unkept)))}', or '*'."
        )
    return lines


def _cells(decision: Decision) -> list[str]:
    rates = (decision.flip_rate, decision.flipped_once, decision.largest_rate)
    return [decision.step, str(decision.decisions), *map(percent, rates)]
