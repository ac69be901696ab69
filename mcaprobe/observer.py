"""Who watches a campaign? The base class watches silently; the command line draws a progress bar."""


class Observer:
    """Receives what happens in a campaign, in order; every method may be overridden, none has to."""

    def say(self, sentence: str) -> None:
        """Receive one sentence that the user should read."""

    def start(self, samples: int, done: int, layers: int) -> None:
        """Receive the number of samples, how many an earlier run left, and the layers of each pass."""

    def chunk(self, first: int, last: int) -> None:
        """Receive the samples of the chunk that starts now (both included)."""

    def layer(self, name: str) -> None:
        """Receive the name of a layer that has just been computed."""

    def advance(self, samples: int) -> None:
        """Receive that this many samples more have run."""

    def stop(self) -> None:
        """Receive that nothing more runs."""
