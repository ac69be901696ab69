"""How are the options of single layers kept in a file? As JSON, checked when it is read and when it is written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Generator

from nanops.conversion.options import Options
from nanops.errors import InputError, nearest
from nanops.tolerance import Tolerance

FORMAT = "nanops overrides 1"
_KEYS = ("format", "overrides", "about")
_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "threshold": ("a number", (int, float)), "fill": ("a string", (str,)), "sigma": ("a number", (int, float)),
    "tolerance": ("a tolerance", (Tolerance,)), "max_ties": ("an integer", (int,)),
    "count_padding": ("true or false", (bool,)), "uniform": ("true or false", (bool,)),
}  # fmt: skip
_TOLERANCE = 'an object {"kind": ..., "value": a number}'


def load_overrides(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the overrides in a file, options by glob in the order of the file, as `convert` takes them.

    Args:
        path: JSON, {"format": "nanops overrides 1", "overrides": {glob: {option: value}}, "about": {...}}, where
            "about" may be missing or hold anything, and a tolerance is {"kind": "absolute", "value": 1e-7}.

    Raises:
        InputError: no such file, another format, an option that is unknown or cannot be in a file, a wrong value.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"Expected overrides as a mapping or the path of a file, got a {type(path).__name__}.")
    content = _read(Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"Expected {path} to be of the format {FORMAT!r}, got {got!r}.")
    for key in content:
        if key not in _KEYS:
            raise InputError(f"Expected {', '.join(_KEYS)} in {path}, got {key!r}{nearest(key, _KEYS)}")
    given = _expect_object(path, "overrides", content.get("overrides"))
    _expect_object(path, "about", content.get("about", {}))
    found: dict[str, dict[str, Any]] = {}
    for glob, options in given.items():
        options = _expect_object(path, f"overrides of {glob!r}", options)
        found[glob] = {name: _option(path, glob, name, value) for name, value in options.items()}
    return found


def save_overrides(
    path: str | Path, overrides: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any] | None = None
) -> None:
    """Write overrides to a file, which appears whole or not at all; `load_overrides` returns equal ones.

    Args:
        path: The file; one that is there is replaced.
        overrides: Options by glob, as `convert` takes them.
        about: Anything that JSON can hold, for whoever reads the file.

    Raises:
        InputError: a generator, which no file can hold, other options that `load_overrides` would refuse, or no folder.
    """
    path = Path(path)
    stored: dict[str, dict[str, Any]] = {}
    for glob, options in _expect_object(path, "overrides", overrides).items():
        if not isinstance(glob, str):
            raise InputError(f"Expected globs in the overrides of {path}, got {glob!r}.")
        options = _expect_object(path, f"overrides of {glob!r}", options)
        checked = {name: _checked(path, glob, name, value) for name, value in options.items()}
        stored[glob] = {name: _plain(value) for name, value in checked.items()}
    content = {"format": FORMAT, "overrides": stored}
    if about is not None:
        content["about"] = dict(_expect_object(path, "about", about))
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"Expected an 'about' that JSON can hold for {path}, but {error}.") from error
    _write(path, text)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except OSError as error:
        raise InputError(f"Expected a file of overrides, got {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also of bytes that are no UTF-8
        raise InputError(f"Expected {path} to be JSON, but {error}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a key that stands twice would silently be the last one."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands in it twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _write(path: Path, text: str) -> None:
    if not path.parent.is_dir():
        raise InputError(f"Expected a folder for {path}, got {path.parent}, which is none.")
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"Expected a file that can be written, got {path}: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _expect_object(path: str | Path, key: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        got = "nothing" if value is None else f"a {type(value).__name__}"
        raise InputError(f"Expected an object as {key} in {path}, got {got}.")
    return value


def _option(path: str | Path, glob: str, name: str, value: Any) -> Any:
    """Return the value of an option as `convert` takes it, from what JSON has."""
    if name != "tolerance":
        return _checked(path, glob, name, value)
    if not isinstance(value, dict) or set(value) != {"kind", "value"} or not _is_a(value["value"], (int, float)):
        raise InputError(f"Expected {_TOLERANCE} as tolerance of {glob!r} in {path}, got {json.dumps(value)}.")
    try:
        return Tolerance(**value)
    except InputError as error:
        raise InputError(f"In {path}, tolerance of {glob!r}: {error}") from None


def _checked(path: str | Path, glob: str, name: str, value: Any) -> Any:
    """Return the value of an option; InputError where `convert` would refuse it, or a file cannot hold it."""
    if name == "generator":
        raise InputError(f"Expected no generator for {glob!r} in {path}: no file can hold one, give it to convert.")
    if name not in _KINDS:
        names = ", ".join(_KINDS)
        raise InputError(f"Expected overrides of {names} for {glob!r} in {path}, got {name!r}{nearest(name, _KINDS)}")
    kind, types = _KINDS[name]
    if not _is_a(value, types):
        raise InputError(f"Expected {kind} as {name} of {glob!r} in {path}, got {value!r}.")
    try:
        # The fill "max_normal" needs a generator, which comes from elsewhere.
        Options(**{name: value, "generator": Generator()})
    except InputError as error:
        raise InputError(f"In {path}, {name} of {glob!r}: {error}") from None
    return value


def _is_a(value: Any, types: tuple[type, ...]) -> bool:
    """Return whether a value is of one of the types; True and False are no numbers."""
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _plain(value: Any) -> Any:
    return {"kind": value.kind, "value": value.value} if isinstance(value, Tolerance) else value
