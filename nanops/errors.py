"""What is said when something cannot be done: one sentence with what was expected and what arrived."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """An argument that no operator can work with."""


class ConversionError(ValueError):
    """A model that cannot be converted faithfully; the sentence names the layer and the reason."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence: the name that was probably meant, or a full stop where none is near."""
    found = get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else "."
