"""Which colour is how many bits, and which a class? The legend of the heatmap and of the maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcaprobe.html_report.groups import Group
from mcaprobe.html_report.markup import Html, tag
from mcaprobe.html_report.pictures import LEVELS, PALETTE
from mcaprobe.html_report.png import indexed_png
from mcaprobe.palette import COLOURS, WORDS


def scale(groups: Sequence[Group]) -> Html:
    """Return the colours of the bits and of the classes that occur."""
    ends = sorted({group.most_bits for group in groups})
    ramp = indexed_png(np.arange(LEVELS, dtype=np.uint8)[None], PALETTE)
    bars = [
        tag("div", tag("img", src=f"data:image/png;base64,{ramp}", alt="from pale (0 bits) to dark", class_="ramp"),
            tag("div", [tag("span", str(tick)) for tick in range(0, top + 1, top // 6 if top % 6 == 0 else top)],
                class_="ramp-ticks"), class_="ramp-box")
        for top in ends
    ]  # fmt: skip
    title = tag("p", "significant bits", class_="scale-title")
    return tag("div", title, bars, swatches(_occurring(groups)), class_="scale")


def _occurring(groups: Sequence[Group]) -> list[tuple[str, str]]:
    rows = [row for group in groups for run in group.runs for row in run.result.rows]
    there = [kind for kind in COLOURS if any(getattr(row, f"share_{kind.name.lower()}") for row in rows)]
    return [(COLOURS[kind], WORDS[kind]) for kind in there]


def swatches(colours: Sequence[tuple[str, str]]) -> Html:
    """Return colours and what they mean."""
    return tag("ul", [tag("li", swatch(colour), tag("span", words)) for colour, words in colours], class_="swatches")


def swatch(colour: str) -> Html:
    """Return a small square of a colour."""
    square = tag("rect", x=0.5, y=0.5, width=13, height=13, fill=colour, class_="swatch")
    return tag("svg", square, width=14, height=14, aria_hidden="true")
