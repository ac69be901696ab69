"""What does the comparison need to know of a task?"""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from analyses.training.budget import Pair


class Task(Protocol):
    """Volumes x (N, 1, D, H, W) float32 and their classes (N, D, H, W) int64."""

    @property
    def name(self) -> str:
        """Of the task."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What is told apart; the first is the background."""

    def identity(self) -> dict[str, Any]:
        """Return all that its data depend on; JSON values."""

    def batch(self, seed: int, step: int) -> Pair:
        """Return what is learnt from at a step; seed and step alone decide it."""

    def loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return what is made small."""

    def validation(self) -> Iterator[Pair]:
        """Yield what is looked at during training."""

    def subjects(self) -> Iterator[tuple[str, list[Pair]]]:
        """Yield each subject of the test: its name, and its parts one after the other."""

    def counted(self, classes: Tensor) -> Tensor:
        """Return which voxels count in a score, bool, the shape of the classes."""

    def timed(self) -> list[Tensor]:
        """Return the parts of one subject, (1, 1, D, H, W) each, whose forwards are timed together."""

    def probed(self) -> list[Tensor]:
        """Return what the emulator sees, (1, 1, D, H, W) each."""

    def plain(self, features: tuple[int, ...], downsampling: str = "pool", norm: str = "batch") -> nn.Module:
        """Return nnU-Net's plain U-Net for this task, which takes x and returns logits (N, classes, D, H, W).

        Batch norm by default: instance norm, nnU-Net's own, takes other statistics where a conversion makes NaN.
        """

    def e2enet(self, features: tuple[int, ...]) -> nn.Module:
        """Return an E2ENet beside a U-Net of these features; in training mode it returns a list of logits.

        Its width is 3/2 of theirs, as the paper's beside nnU-Net's, or 3/4 beside a network in two dimensions, whose
        kernels have a third of the taps.
        """

    def core(self, network: nn.Module) -> tuple[nn.Module, Tensor]:
        """Return the part of a plain U-Net that pruning follows, and a small input of it."""
