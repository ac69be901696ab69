"""How does text become HTML without ever becoming markup?"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

# Elements without an end tag, https://html.spec.whatwg.org/#void-elements.
_VOID = frozenset({"img", "input", "br", "hr", "col", "meta"})
# In a script element only these could end it, or begin a comment, before the JSON does.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Html(str):
    """Text that is markup already: it is not escaped again."""

    __slots__ = ()


Child = str | int | None | Iterable["Child"]


def escaped(child: Child) -> Html:
    """Return text with all of its special characters escaped, markup as it is, and sequences one after the other."""
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return Html(html.escape(str(child)))
    return Html("" if child is None else "".join(escaped(item) for item in child))


def tag(name: str, *children: Child, **attributes: Any) -> Html:
    """Return an element.

    Args:
        children: Strings are escaped, Html is not, None is nothing.
        attributes: A trailing underscore is dropped (`class_`), other underscores are hyphens (`aria_label`); None and
            False leave the attribute out, True gives it no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            label = key.rstrip("_").replace("_", "-")
            parts.append(label if value is True else f'{label}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _VOID else f"{opening}{escaped(children)}</{name}>")


def data_island(name: str, value: Any) -> Html:
    """Return a script element that holds JSON and is never executed; no string in it can end the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')
