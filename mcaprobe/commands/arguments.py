"""Which command line gives these arguments?"""

from __future__ import annotations

import argparse
from typing import Any


def arguments_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Return arguments that `parser` reads as `args`; what is as by default is left out.

    Positionals come first, so that an option with any number of values does not swallow them.
    """
    positionals: list[str] = []
    options: list[str] = []
    for action in parser._actions:  # argparse has no public list of them
        value = getattr(args, action.dest, None)
        if not action.option_strings:
            positionals.append(_text(value))
        elif value is not None and value != action.default:
            options += _option(action, value)
    return [*positionals, *options]


def _option(action: argparse.Action, value: Any) -> list[str]:
    name = action.option_strings[0]
    if action.nargs == 0:
        return [name]
    if action.nargs is None and isinstance(value, list):  # an option that is repeated
        return [part for one in value for part in (name, _text(one))]
    values = value if isinstance(value, list) else [value]
    return [name, *map(_text, values)]


def _text(value: Any) -> str:
    """Return a value as it is written on a command line; (256, 256) is 256x256."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
