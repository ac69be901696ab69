"""Where on the page is each panel, and which text fits where?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from mcaprobe.selection import short_names

WIDTH = 7.0  # inches: a page
MARGIN, GAP, CAPTION, NOTE = 0.08, 0.07, 0.27, 0.11  # inches; NOTE is a line of the footer
TITLE_POINTS, NAME_POINTS, NOTE_POINTS = 9.0, 6.2, 5.5


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the panels of a figure are, in inches.

    Attributes:
        columns, rows: Of panels.
        side: Width and height of a panel.
        top: Room above the panels, for the title.
        bottom: Room below them, for the scale, the legend and the footer.
    """

    columns: int
    rows: int
    side: tuple[float, float]
    top: float
    bottom: float

    @property
    def height(self) -> float:
        """Return the height of the figure."""
        return self.top + self.rows * (self.side[1] + CAPTION) + self.bottom

    def panel(self, figure: Figure, number: int) -> Axes:
        """Add the axes of a panel, counted from 0 along the rows."""
        row, column = divmod(number, self.columns)
        left = MARGIN + column * (self.side[0] + GAP)
        low = self.height - self.top - row * (self.side[1] + CAPTION) - self.side[1]
        return self.axes(figure, left, low, *self.side)

    def axes(self, figure: Figure, left: float, low: float, width: float, height: float) -> Axes:
        """Add axes whose lower left corner is at (left, low)."""
        return figure.add_axes((left / WIDTH, low / self.height, width / WIDTH, height / self.height))


def layout_for(panels: int, ratio: float, title: int, bottom: float) -> Layout:
    """Return the layout of a number of panels of `ratio` height over width, under a title of `title` lines."""
    columns = next((c for c, most in ((3, 3), (4, 8), (5, 15), (6, 24)) if panels <= most), 7)
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    rows = -(-panels // columns)
    return Layout(columns, rows, (width, width * ratio), 0.15 * title + 0.19 if title else MARGIN, bottom)


@cache
def _letter(letter: str, points: float, weight: str) -> float:
    font = FontProperties(size=points, weight=weight)
    return float(text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0])


def width_of(text: str, points: float, weight: str = "normal") -> float:
    """Return the width of a text in inches, or a little more: letters are set on whole pixels."""
    return 1.03 * sum(_letter(letter, points, weight) for letter in text) / 72


def wrapped(text: str, points: float, weight: str = "normal") -> list[str]:
    """Return the lines of a text as wide as the page, cut between words; it may hold line breaks of its own."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and width_of(f"{line} {word}", points, weight) > WIDTH - 2 * MARGIN:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines.append(line)
    return lines


def captions_for(names: Sequence[str], inches: float) -> list[str]:
    """Return the numbered short names, each as long as fits below a panel."""
    captions: dict[int, str] = {}
    for width in range(60, 5, -1):
        for i, name in enumerate(short_names(names, width)):
            if i not in captions and width_of(f"{i + 1}  {name}", NAME_POINTS) <= inches:
                captions[i] = f"{i + 1}  {name}"
    return [captions.get(i, str(i + 1)) for i in range(len(names))]
