"""How does each network of a comparison learn the same task, from the same batches, in as many steps?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from analyses.training.supervision import deep_supervision
from mcaprobe.errors import InputError

Pair = tuple[Tensor, Tensor]
Batches = Callable[[int], Pair]
Loss = Callable[[Tensor, Tensor], Tensor]


class Companion(Protocol):
    """What goes along with a training: masks, say, or pruning. It may change the network and the optimizer's groups."""

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss of the last forward."""

    def after(self, step: int, loss: float) -> None:
        """Do what is due after a step, counted from 1, whose loss without the penalty is given."""


Attach = Callable[[nn.Module, Optimizer], Companion]


@dataclass(frozen=True, slots=True)
class Budget:
    """What every network may spend; AdamW, whose rate sinks by (1 - t / T)^0.9.

    Args:
        steps: T.
        seed: Of the initial weights and of the batches.
        autocast: Whether convolutions multiply in bfloat16, which is faster; weights and loss are float32.
    """

    steps: int = 300
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    seed: int = 0
    autocast: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"Expected 1 step or more, got {self.steps}.")


def built(build: Callable[[], nn.Module], budget: Budget) -> nn.Module:
    """Return a network with the initial weights of the budget's seed; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(budget.seed)
        return build()


def train(
    network: nn.Module, batches: Batches, loss_of: Loss, budget: Budget, attach: Attach | None = None
) -> list[float]:
    """Train a network in place, leave it in eval mode, and return the loss of each step without penalties.

    Args:
        network: Returns logits (N, classes, *size), or in training mode several, the finest first.
        batches: Images (N, C, *size) and classes (N, *size), int64, by step.
        loss_of: Of logits and classes.
        attach: Called once with network and optimizer; returns what accompanies the training.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    optimizer = AdamW(network.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay)
    companion = attach(network, optimizer) if attach else None
    losses: list[float] = []
    network.train()
    for step in range(budget.steps):
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate * (1 - step / budget.steps) ** 0.9
        images, classes = batches(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.autocast):
            output = network(images)
        outputs = [o.float() for o in ([output] if isinstance(output, Tensor) else output)]
        loss = deep_supervision(loss_of, outputs, classes)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Expected a finite loss, got {float(loss.detach())} at step {step}.")
        losses.append(float(loss.detach()))
        penalty = companion.penalty() if companion is not None else None
        optimizer.zero_grad(set_to_none=True)
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if companion is not None:
            companion.after(step + 1, losses[-1])
    network.eval()
    return losses
