"""How do tables reach a terminal, or a file in the place of one?"""

from collections.abc import Iterable

from rich.console import Console


def wide_console(width: int) -> Console:
    """Return the terminal's console, or one of this width where there is no terminal to ask for its own."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print lines as they are, to be copied: not wrapped, not coloured."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
