"""What goes along with a training: masks of E2ENet, Sauron's pruning, or one cut by magnitude on the way."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from analyses.compress.dsff import Masks
from analyses.compress.sauron import Sauron
from analyses.compress.weakest import prune_weakest
from analyses.training.budget import Pair
from analyses.training.supervision import deep_supervision

Loss = Callable[[Tensor, Tensor], Tensor]


class Masked:
    """Dynamic sparse feature fusion: masks after every step."""

    def __init__(self, masks: Masks) -> None:
        self.masks = masks

    def penalty(self) -> None:
        """Add nothing to the loss."""

    def after(self, step: int, loss: float) -> None:
        """Mask, and exchange kernels where it is time."""
        self.masks.step(step)


class Sauronic:
    """Sauron: its penalty at each step, its pruning after each epoch.

    Args:
        network: The whole, of which `sauron` prunes a part.
        steps: Of the training; epochs: how many they make, equally long.
        validation: Images and classes; called once an epoch, loss_of: of logits and classes.
    """

    def __init__(
        self, network: nn.Module, sauron: Sauron, steps: int, epochs: int,
        validation: Callable[[], Iterable[Pair]], loss_of: Loss,
    ) -> None:  # fmt: skip
        self.network, self.sauron, self.steps = network, sauron, steps
        self.ends = {steps * (k + 1) // epochs for k in range(epochs)}
        self.validation, self.loss_of = validation, loss_of
        self.losses: list[float] = []

    def penalty(self) -> Tensor:
        """Return lambda delta_opt."""
        return self.sauron.penalty()

    def after(self, step: int, loss: float) -> None:
        """Take note of the loss; at the end of an epoch raise thresholds and prune."""
        self.losses.append(loss)
        if step not in self.ends:
            return
        self.sauron.end_epoch(sum(self.losses) / len(self.losses), self._validated())
        self.losses.clear()
        if step == self.steps:
            self.sauron.close()

    @torch.no_grad()
    def _validated(self) -> float:
        self.network.eval()
        found = [float(deep_supervision(self.loss_of, [self.network(x)], y.long())) for x, y in self.validation()]
        self.network.train()
        return sum(found) / len(found)


class Cut:
    """Structured magnitude pruning: once, at a step, the weakest channels leave the network; the training goes on.

    Args:
        core: What is pruned, with an input of it.
        at: Step, counted from 1.
        share: Of each convolution's channels.
    """

    def __init__(
        self, core: nn.Module, example: Tensor, optimizer: Optimizer | None, at: int, share: float
    ) -> None:
        self.core, self.example, self.optimizer, self.at, self.share = core, example, optimizer, at, share

    def penalty(self) -> None:
        """Add nothing to the loss."""

    def after(self, step: int, loss: float) -> None:
        """Prune where it is time."""
        if step == self.at:
            prune_weakest(self.core, self.example, self.share, self.optimizer)
