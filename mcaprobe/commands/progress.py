"""How far is the run? A progress bar with samples, layer and time left, on the error stream."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mcaprobe.observer import Observer


class Sentences(Observer):
    """Prints the sentences only."""

    def say(self, sentence: str) -> None:
        print(f"mcaprobe: {sentence}", file=sys.stderr)


class Bar(Observer):
    """Draws a bar that advances with each layer of each pass."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TextColumn("samples  layer [bold]{task.fields[layer]}[/bold]"), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._console = console
        self._task = self._progress.add_task("waiting", total=None, layer="")
        self._layers = 1
        self._whole = 0
        self._met = 0
        self._width = 0.0

    def say(self, sentence: str) -> None:
        self._console.print(f"mcaprobe: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def start(self, samples: int, done: int, layers: int) -> None:
        self._layers, self._whole = max(layers, 1), done
        self._progress.update(self._task, total=samples, completed=done, description="running")
        self._progress.start()

    def chunk(self, first: int, last: int) -> None:
        self._met, self._width = 0, float(last - first + 1)
        self._progress.update(self._task, description=f"samples {first}-{last}", completed=self._whole)

    def layer(self, name: str) -> None:
        # Side by side, one pass is the whole chunk; one at a time, `advance` corrects the place after each sample.
        self._met += 1
        shown = self._whole + min(self._met / self._layers, 1.0) * self._width
        self._progress.update(self._task, completed=min(int(shown), self._whole + int(self._width)), layer=name)

    def advance(self, samples: int) -> None:
        self._whole += samples
        self._met = 0
        self._width = max(self._width - samples, 1.0)
        self._progress.update(self._task, completed=self._whole)

    def stop(self) -> None:
        self._progress.stop()


def observer_for(args: argparse.Namespace) -> Observer:
    """Return a bar on a terminal, sentences elsewhere and with --json, silence with --quiet."""
    if args.quiet:
        return Observer()
    return Bar() if sys.stderr.isatty() and not args.json else Sentences()


@contextmanager
def layers_shown(args: argparse.Namespace) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (layers done, layers in all, name of the next) that draws a bar on a terminal."""
    if args.quiet or args.json or not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    columns = BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("layers  [bold]{task.fields[layer]}[/bold]")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", layer="")
        yield lambda done, total, name: bar.update(task, completed=done, total=total, layer=name)
