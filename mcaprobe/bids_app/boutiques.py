"""How does Boutiques call `mcaprobe bids`? A descriptor made from the command's parser, so that the two agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

SCHEMA = "0.5"
TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "Number", "integer": True},
    float: {"type": "Number"},
    Path: {"type": "File"},  # folders count as files there
}
OUTPUTS = (
    ("derivatives", "Derivatives", "{key}", False),
    ("group_table", "Means over the subjects", "{key}/group_sigbits.tsv", True),
    ("group_report", "Report of the group", "{key}/group.html", True),
)


class PrintDescriptor(argparse.Action):
    """Prints the descriptor of the parser it belongs to, and ends, as --help does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> NoReturn:
        print(text(parser), end="")
        parser.exit()


def text(parser: argparse.ArgumentParser) -> str:
    """Return the descriptor as the text of its file."""
    return json.dumps(descriptor(parser), indent=2, ensure_ascii=False) + "\n"


def descriptor(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the Boutiques descriptor of a BIDS App's parser: three positionals, then options."""
    from mcaprobe.manifest import versions  # torch comes with it, which --help does without

    actions = [action for action in parser._actions if not isinstance(action, (argparse._HelpAction, PrintDescriptor))]
    inputs = [_input(action) for action in actions]
    out = next(entry["value-key"] for entry in inputs if entry["id"] == "out")
    about = " ".join((parser.description or "").split("\n\n")[0].split())
    return {
        "schema-version": SCHEMA,
        "name": "mcaprobe bids",
        "tool-version": versions()["mcaprobe"],
        "author": "The mcaprobe developers",
        "description": about,
        "tags": {"domain": ["neuroinformatics", "numerical stability"]},
        "command-line": f"{parser.prog} {' '.join(str(entry['value-key']) for entry in inputs)}",
        "inputs": inputs,
        "groups": _groups(parser, actions),
        "output-files": [
            {"id": name, "name": title, "path-template": path.format(key=out), "optional": optional}
            for name, title, path, optional in OUTPUTS
        ],
        "error-codes": [
            {"code": 2, "description": "bad input"},
            {"code": 3, "description": "images failed; the others are done"},
            {"code": 130, "description": "interrupted by Ctrl-C"},
        ],
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": (action.help or "").replace("%%", "%"),
        "value-key": f"[{action.dest.upper()}]",
        "optional": bool(action.option_strings),
        **_type(action),
    }
    if action.option_strings:
        entry["command-line-flag"] = action.option_strings[0]
    if action.choices is not None:
        entry["value-choices"] = list(action.choices)
    if action.nargs == "+":
        entry["list"] = True
        entry["min-list-entries"] = 1
    return entry


def _type(action: argparse.Action) -> dict[str, Any]:
    if action.nargs == 0:
        return {"type": "Flag"}
    if action.dest == "out":
        return {"type": "String"}  # it need not exist
    return TYPES.get(action.type, {"type": "String"})


def _groups(parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]) -> list[dict[str, Any]]:
    """Return the groups of the help page."""
    found = []
    for number, group in enumerate(parser._action_groups[2:], start=1):
        members = [action.dest for action in group._group_actions if action in actions]
        if members:
            found.append({"id": f"group{number}", "name": group.title, "members": members})
    return found
