"""How does a chart stay readable at any width? Positions across are in percent, everything else in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mcaprobe.html_report.markup import Child, Html, tag

SERIES = 8  # colours and marks before they repeat
_MARKS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-5L5,0L0,5L-5,0z",
    "M0,-4.8L4.6,3.6H-4.6z",
    "M0,4.8L4.6,-3.6H-4.6z",
    "M-1.4,-4.5h2.8v3.1h3.1v2.8h-3.1v3.1h-2.8v-3.1h-3.1v-2.8h3.1z",
    "M-4.5,-2.2h9v4.4h-9z",
    "M-2.2,-4.5h4.4v9h-4.4z",
)


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis, its ticks, and what it shows."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


def axis_for(values: Sequence[float], label: str, low: float | None = None, high: float | None = None) -> Axis:
    """Return an axis with round ticks over the values; low and high fix an end."""
    least, most = min(values) if low is None else low, max(values) if high is None else high
    if most <= least:
        least, most = least - 0.5 * (abs(least) or 1), least + 0.5 * (abs(least) or 1)
    step = _step((most - least) / 5)
    first = low if low is not None else round(math.floor(least / step + 1e-9) * step, 12)
    last = high if high is not None else round(math.ceil(most / step - 1e-9) * step, 12)
    count = math.floor((last - first) / step + 1e-6)
    return Axis(first, last, tuple(round(first + k * step, 12) for k in range(count + 1)), label)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough - 1e-12 * power)


def percent(share: float) -> str:
    """Return a share as a length in percent."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def pixels(value: float) -> str:
    """Return a length in pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle that a chart is drawn in, of a height in pixels and of any width."""

    x: Axis
    y: Axis
    height: int = 240

    def across(self, value: float) -> str:
        """Return the position of a value across."""
        return percent(self.x.share(value))

    def down(self, value: float) -> str:
        """Return the position of a value from the top."""
        return pixels((1 - self.y.share(value)) * self.height)

    def line(self, a: tuple[float, float], b: tuple[float, float], series: int, more: str = "") -> Html:
        """Return a straight line between two points."""
        return tag("line", x1=self.across(a[0]), y1=self.down(a[1]), x2=self.across(b[0]), y2=self.down(b[1]),
                   class_=f"line s{series % SERIES} {more}".strip())  # fmt: skip

    def mark(self, point: tuple[float, float], series: int, about: str, label: str = "", more: str = "") -> Html:
        """Return a mark with a tooltip, and a label beside it."""
        text = tag("text", label, x=7, y=-6, class_="label") if label else None
        return tag("svg", mark(series, about, more), text, x=self.across(point[0]), y=self.down(point[1]),
                   class_="at")  # fmt: skip

    def figure(self, body: Sequence[Html], about: str, below: Child = None) -> Html:
        """Return the chart: axes with labels around the drawing.

        Args:
            about: What a person hears who does not see it.
            below: What stands below the drawing instead of the ticks of the axis across.
        """
        rules = [tag("line", x1=0, x2="100%", y1=self.down(t), y2=self.down(t), class_="rule") for t in self.y.ticks]
        names = [tag("text", number(t), x=38, y=self.down(t), dy="0.32em", class_="tick end") for t in self.y.ticks]
        return tag(
            "div",
            tag("p", self.y.label, class_="y-label"),
            tag("svg", names, class_="y-axis", width=44, height=self.height, aria_hidden="true"),
            tag("svg", rules, body, class_="area", height=self.height, role="img", aria_label=about),
            below if below is not None else self._ticks(),
            tag("p", self.x.label, class_="x-label"),
            class_="plot",
        )

    def _ticks(self) -> Html:
        ends = {self.x.ticks[0]: "tick", self.x.ticks[-1]: "tick end"}
        kinds = [(t, ends.get(t, "tick middle")) for t in self.x.ticks]
        names = [tag("text", number(t), x=self.across(t), y=14, class_=kind) for t, kind in kinds]
        return tag("svg", names, class_="x-axis", height=20, aria_hidden="true")


def mark(series: int, about: str = "", more: str = "") -> Html:
    """Return the mark of a series around the origin, with a tooltip."""
    title = tag("title", about) if about else None
    return tag("path", title, d=_MARKS[series % SERIES], class_=f"mark s{series % SERIES} {more}".strip())


def legend(names: Sequence[str]) -> Html:
    """Return the marks of the series and their names."""
    items = [tag("li", tag("svg", tag("svg", mark(i), x=8, y=8, class_="at"), width=16, height=16, aria_hidden="true"),
                 tag("span", name)) for i, name in enumerate(names)]  # fmt: skip
    return tag("ul", items, class_="legend")


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: a name at the left, a length in [0, 1], a range, a tick, and a text at the right."""

    name: str
    length: float
    text: str
    series: int = 0
    span: tuple[float, float] | None = None
    tick: float | None = None


def bars(found: Sequence[Bar], about: str) -> Html:
    """Return bars below each other."""
    lines = []
    for bar in found:
        parts = [tag("rect", x=0, y=4, height=12, width=percent(bar.length), class_=f"bar s{bar.series % SERIES}")]
        if bar.span is not None:
            low, high = (percent(end) for end in bar.span)
            parts.append(tag("line", x1=low, x2=high, y1=10, y2=10, class_="whisker"))
            parts += [tag("line", x1=end, x2=end, y1=6, y2=14, class_="whisker") for end in (low, high)]
        if bar.tick is not None:
            parts.append(tag("line", x1=percent(bar.tick), x2=percent(bar.tick), y1=1, y2=19, class_="tick-mark"))
        drawing = tag("svg", parts, height=20, aria_hidden="true", class_="bar-area")
        name, text = tag("span", bar.name, class_="bar-name"), tag("span", bar.text, class_="bar-text")
        lines.append(tag("li", name, drawing, text))
    return tag("ul", lines, class_="bars", aria_label=about)


def number(value: float) -> str:
    """Return a number as people write it."""
    text = f"{value:.4g}"
    return text if "e" not in text or abs(value) >= 1e5 or abs(value) < 1e-4 else f"{value:.0f}"
