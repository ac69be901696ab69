"""What does the user of `mcaprobe bids` read? What is done, what failed, and the command that tries that again."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mcaprobe.bids_app.folder import FAILURES, Folder
from mcaprobe.bids_app.group import Group
from mcaprobe.bids_app.participant import Outcome
from mcaprobe.commands.arguments import arguments_of
from mcaprobe.storage import to_json, write_json

FINISHED, WITH_FAILURES = 0, 3
SELECTING = ("participant_label", "session_label", "bids_filter_file", "images")


def report_participants(folder: Folder, outcome: Outcome, args: argparse.Namespace) -> int:
    """Print what became of the images and write the failures into the folder; return the exit code."""
    code = WITH_FAILURES if outcome.failed or outcome.report_failures else FINISHED
    retry = retry_command(args, [image.name for image, _ in outcome.failed]) if outcome.failed else None
    failed = [{"image": image.name, "reason": why} for image, why in outcome.failed]
    unreported = [{"subject": subject, "reason": why} for subject, why in outcome.report_failures]
    facts = {"failed": failed, "reports_failed": unreported, "retry": retry}
    _write_failures(folder, args)
    if args.json:
        print(to_json({"exit_code": code, "out": str(args.out), "finished": outcome.finished,
                       "complete_before": outcome.skipped, **facts}))  # fmt: skip
        return code
    if args.quiet:
        print(args.out)
    else:
        before = f"; complete before: {len(outcome.skipped)}" if outcome.skipped else ""
        print(f"Images done: {len(outcome.finished)}{before}. The derivatives are {args.out}.")
    for line in _failures(outcome, retry):
        print(line, file=sys.stderr)
    return code


def _write_failures(folder: Folder, args: argparse.Namespace) -> None:
    """Write all that failed so far, in this call and in others on the same folder, and the command for all of it."""
    every = {name: about["sentence"] for name, about in folder.failed().items()}
    failed = [{"image": name, "reason": why} for name, why in every.items()]
    write_json(folder.work / FAILURES, {"failed": failed, "retry": retry_command(args, list(every)) if every else None})


def _failures(outcome: Outcome, retry: str | None) -> list[str]:
    lines = []
    if retry is not None:
        count = len(outcome.failed)
        lines.append(f"mcaprobe: {count} {'image' if count == 1 else 'images'} failed:")
        lines += [f"  {image.name}: {why}" for image, why in outcome.failed]
        lines += ["Try exactly this again:", f"  {retry}"]
    return lines + [f"mcaprobe: The report of sub-{subject} failed: {why}" for subject, why in outcome.report_failures]


def retry_command(args: argparse.Namespace, names: Sequence[str]) -> str:
    """Return the command line that runs the named images and no others, with all other options as they were.

    Without --overwrite: what these images have finished stays.
    """
    changed = {**vars(args), **dict.fromkeys(SELECTING), "images": list(names), "overwrite": False}
    return shlex.join(["mcaprobe", "bids", *arguments_of(args.parser, argparse.Namespace(**changed))])


def report_group(folder: Folder, found: Group, files: Sequence[Path], args: argparse.Namespace) -> int:
    """Print what the group level left; return the exit code."""
    if args.json:
        print(to_json({"exit_code": FINISHED, "subjects": found.subjects, "missing": found.missing,
                       "files": [str(path) for path in files]}))  # fmt: skip
    elif args.quiet:
        print(args.out)
    else:
        layers = len({row.layer for row in found.rows})
        print(f"{len(found.subjects)} subjects, {layers} layers; {found.interval_words}.")
        print(f"The table and the page are {' and '.join(str(args.out / path.name) for path in files)}.")
        for name, why in found.missing.items():
            print(f"Without {name}, which failed: {why}")
    return FINISHED
