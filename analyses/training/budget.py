"""How does each network of a comparison learn the same task, from the same batches, in as many steps?"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from analyses.training.losses import segmentation_loss
from analyses.training.randomness import Dice
from analyses.training.supervision import deep_supervision
from mcaprobe.errors import InputError

# What is done after each step, counted from 1.
After = Callable[[int], object]
Attach = Callable[[nn.Module, Optimizer], After]


@dataclass(frozen=True, slots=True)
class Budget:
    """What every network may spend; AdamW, whose rate sinks by (1 - t / T)^0.9.

    Args:
        steps: T.
        batch: Volumes a step.
        seed: Of the initial weights and of the batches.
    """

    steps: int = 300
    batch: int = 1
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"Expected steps and a batch of 1 or more, got {self.steps} and {self.batch}.")


def built(build: Callable[[], nn.Module], budget: Budget) -> nn.Module:
    """Return a network with the initial weights of the budget's seed; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(budget.seed)
        return build()


def train(
    network: nn.Module, images: Tensor, classes: Tensor, budget: Budget, attach: Attach | None = None
) -> list[float]:
    """Train a network in place, leave it in eval mode, and return the loss of each step.

    Args:
        network: Returns logits (N, classes, *size), or in training mode several, the finest first.
        images: (M, C, *size), from which the step alone draws a batch.
        classes: (M, *size), int64.
        attach: Called once with network and optimizer; returns what is called after each step (masks, say).

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    optimizer = AdamW(network.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay)
    after = attach(network, optimizer) if attach else None
    losses: list[float] = []
    network.train()
    for step in range(budget.steps):
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate * (1 - step / budget.steps) ** 0.9
        chosen = torch.randint(len(images), (budget.batch,), generator=Dice.of(budget.seed, step).generator)
        output = network(images[chosen])
        outputs = [output] if isinstance(output, Tensor) else list(output)
        loss = deep_supervision(segmentation_loss, outputs, classes[chosen])
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Expected a finite loss, got {float(loss.detach())} at step {step}.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if after is not None:
            after(step + 1)
        losses.append(float(loss.detach()))
    network.eval()
    return losses
