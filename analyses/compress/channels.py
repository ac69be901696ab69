"""Which channels can only go together, and which can never go?"""

from collections.abc import Iterable, Sequence


class Channels:
    """Numbered channels in classes (a disjoint-set forest): those of a class go together, a locked one never goes."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._locks: dict[int, str] = {}

    def new(self, count: int) -> tuple[int, ...]:
        """Return so many channels, each in a class of its own."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return tuple(range(first, first + count))

    def find(self, channel: int) -> int:
        """Return the channel that stands for the class of a channel."""
        root = channel
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[channel] != root:
            self._parents[channel], channel = root, self._parents[channel]
        return root

    def join(self, some: Sequence[int], others: Sequence[int]) -> None:
        """Make one class of each channel and its partner."""
        for one, other in zip(some, others, strict=True):
            kept, gone = sorted((self.find(one), self.find(other)))
            if kept != gone:
                self._parents[gone] = kept
                reason = self._locks.pop(gone, None)
                if reason is not None:
                    self._locks.setdefault(kept, reason)

    def lock(self, channels: Iterable[int], reason: str) -> None:
        """Say that the classes of these channels never go; the first reason given stays."""
        for channel in channels:
            self._locks.setdefault(self.find(channel), reason)

    def lock_of(self, channel: int) -> str | None:
        """Return the reason why a channel never goes, or None."""
        return self._locks.get(self.find(channel))
