"""How do the parts become one file that asks for nothing? Style, script and data inside, and a policy that says so."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from mcaprobe.html_report.markup import Html, data_island, escaped, tag

FORMAT = "mcaprobe report 1"
_ASSETS = "mcaprobe.html_report"


def asset(name: str) -> str:
    """Return a text file of the folder `assets`."""
    return files(_ASSETS).joinpath("assets", name).read_text(encoding="utf-8")


def build(title: str, parts: Mapping[str, Html | None], nav: Sequence[tuple[str, str]], data: Any) -> bytes:
    """Return the page.

    Args:
        title: Of the window, and the heading.
        parts: What stands at each $name of template.html; None is nothing.
        nav: Of each section its id and name.
        data: What the script reads.
    """
    style, script = asset("style.css"), asset("script.js")
    links = [tag("li", tag("a", name, href=f"#{target}")) for target, name in nav]
    fields = {
        "generator": escaped(FORMAT),
        "policy": escaped(policy(style, script)),
        "title": escaped(title),
        "heading": escaped(title),
        "nav": tag("ul", links),
        "style": style,
        "script": script,
        "data": data_island("data", data),
        **{name: part or "" for name, part in parts.items()},
    }
    return Template(asset("template.html")).substitute(fields).encode()


def policy(style: str, script: str) -> str:
    """Return a content security policy: pictures from within, this style and this script, and no request at all."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def is_report(start: str) -> bool:
    """Return whether a file that begins so is a report of this package."""
    return f'<meta name="generator" content="{FORMAT.rsplit(" ", 1)[0]} ' in start
