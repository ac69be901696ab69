"""mcaprobe doctor: what this machine can run, a line for each, and what would mend it."""

import argparse
from pathlib import Path
from typing import Any

from mcaprobe.commands.parsing import EXIT_CODES

ABOUT = """\
Say what this machine can run: Valgrind with Verrou, container engines and their
images, the processor, torch, the compiled kernels, disk, memory, GPU. Each line that
is not as it could be has its remedy. Nothing is changed; the exit code is 0.
"""
EXAMPLES = """\
examples:
  mcaprobe doctor
  mcaprobe doctor --out /scratch/run1 --json

"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor", help="say what this machine can run", description=ABOUT, epilog=EXAMPLES + EXIT_CODES
    )
    parser.set_defaults(command=main)
    parser.add_argument(
        "--out", type=Path, default=Path("."), metavar="DIR", help="where runs would be (default: here)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the findings; return the exit code."""
    from dataclasses import asdict

    from mcaprobe.doctor import examine

    folder = args.out.absolute()
    while not folder.exists():
        folder = folder.parent
    findings = examine(folder)
    if args.json:
        from mcaprobe.storage import to_json

        print(to_json({"findings": [asdict(finding) for finding in findings], "exit_code": 0}))
        return 0
    for finding in findings:
        remedy = f"; remedy: {finding.remedy}" if finding.remedy else ""
        print(f"{'yes' if finding.good else 'no ':<3}  {finding.name:<15}  {finding.found}{remedy}")
    return 0
