"""What is said when something cannot be done: one sentence with what was expected and what arrived."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """An argument that no operator can work with."""


class ConversionError(ValueError):
    """A model that cannot be converted faithfully; the sentence names the layer and the reason."""


def nearest(name: object, names: Iterable[str]) -> str:
    """Return the end of a sentence: the name that was probably meant, or a full stop where none is near."""
    found = get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else "."


def expect_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise InputError where an option is none of its choices."""
    if value not in choices:
        expected, end = ", ".join(choices), nearest(value, choices)
        raise InputError(f"Expected {name} to be one of {expected}, got {value!r}{end}")


def expect_threshold(threshold: float) -> None:
    """Raise InputError where no share of NaN reaches a threshold, or every share does."""
    if not 0 < threshold <= 1:
        raise InputError(f"Expected a threshold in (0, 1], got {threshold}.")
