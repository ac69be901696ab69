"""How does a network lose redundant filters while it learns? Sauron's Algorithm 1, beside any training loop.

    sauron = Sauron(model, optimizer, example, torch.Generator().manual_seed(0))
    for epoch in range(epochs):
        model.train()
        for x, y in batches:
            loss = task_loss(model(x), y) + sauron.penalty()
            ...
        report = sauron.end_epoch(training_loss, validation_loss)
"""

from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from analyses.compress.delta import EPSILON, WINDOW, delta_opt, delta_prune
from analyses.compress.prune import decide, prune
from analyses.compress.structure import Structure, follow
from analyses.compress.thresholds import Conditions, Schedule, Threshold
from analyses.compress.tracing import Example
from mcaprobe.errors import InputError


@dataclass(frozen=True, slots=True)
class Settings:
    """Sauron's choices; the paper's by default.

    Attributes:
        weight: lambda, the weight of delta_opt in the loss.
        schedule: How thresholds rise.
        window: omega, window and stride of the average pooling.
        epsilon: Added to a feature map's range.
        rule: How convolutions whose channels go together agree (`prune.decide`).
    """

    weight: float = 0.5
    schedule: Schedule = field(default_factory=Schedule)
    window: int = WINDOW
    epsilon: float = EPSILON
    rule: str = "all"


@dataclass(frozen=True, slots=True)
class Report:
    """What the end of an epoch brought, by convolution.

    Attributes:
        epoch: Counted from 1.
        conditions: What held.
        thresholds: tau_l afterwards.
        references: pi, the channel that the others were compared with, before the pruning.
        removed: Indices of the channels that went, before the pruning.
        channels: Numbers of channels that are left.
    """

    epoch: int
    conditions: dict[str, Conditions]
    thresholds: dict[str, float]
    references: dict[str, int]
    removed: dict[str, list[int]]
    channels: dict[str, int]


class Sauron:
    """Collects the feature maps of a network in training mode, gives the loss term and prunes after each epoch.

    The feature map of a convolution is the output of its block (convolution, normalisation, activation; see
    `Structure.blocks`). Heads, and convolutions of which no channel may go, have no part in it. Channel 1 of
    delta_opt is the first one that is left. A context manager: its hooks are gone behind it, or after `close`.

    Args:
        model: The network; it is changed in place.
        optimizer: Whose parameters and state follow the pruning, or None.
        example: An input of the network or its inputs, for tracing.
        generator: Of the channels pi, on the CPU; one for each layer and epoch.

    Raises:
        InputError: the network cannot be followed, or has no convolution of which a channel may go.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        example: Example,
        generator: torch.Generator,
        settings: Settings | None = None,
    ) -> None:
        self.model, self.optimizer, self.example = model, optimizer, example
        self.generator, self.settings = generator, settings or Settings()
        if generator.device.type != "cpu":
            raise InputError(f"Expected a generator on the CPU, got one on {generator.device}.")
        self.structure = self._follow()
        self.layers = self.structure.prunable()
        if not self.layers:
            raise InputError("Expected a convolution of which a channel may go, found none.")
        self.thresholds = {layer: Threshold(self.settings.schedule) for layer in self.layers}
        self.training_losses: list[float] = []
        self.validation_losses: list[float] = []
        self._maps: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = [
            model.get_submodule(self.structure.blocks[layer]).register_forward_hook(partial(self._collect, layer))
            for layer in self.layers
        ]
        self._begin_epoch()

    def __enter__(self) -> "Sauron":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks away and forget the feature maps."""
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def penalty(self) -> Tensor:
        """Return lambda times delta_opt of the last forward in training mode, and take note of its delta_prune.

        Raises:
            InputError: there was none since the last call.
        """
        if len(self._maps) != len(self.layers):
            raise InputError("Expected a forward of the network in training mode before each penalty.")
        maps, self._maps = self._maps, {}
        with torch.no_grad():
            for layer in self.layers:
                found = delta_prune(maps[layer], self.references[layer], self.settings.window)
                self._sums[layer] += found.double().sum(0).cpu()
            self._samples += len(found)
        term = delta_opt([maps[layer] for layer in self.layers], self.settings.window, self.settings.epsilon)
        return self.settings.weight * term

    def deltas(self) -> dict[str, Tensor]:
        """Return delta_prune of each convolution's channels, the mean over the epoch's samples so far, (C,) float64.

        Raises:
            InputError: there was none yet.
        """
        if not self._samples:
            raise InputError("Expected a penalty before the end of an epoch.")
        return {layer: total / self._samples for layer, total in self._sums.items()}

    def end_epoch(self, training_loss: float, validation_loss: float) -> Report:
        """Raise thresholds (procedure 1), prune (procedure 2) and begin the next epoch.

        A channel has its convolution's vote to go where delta_prune < tau_l; no class of a channel pi goes.

        Args:
            training_loss: Of the epoch that ends.
            validation_loss: After it.

        Raises:
            InputError: no penalty was asked for in this epoch, or a loss is not finite.
        """
        if not (isfinite(training_loss) and isfinite(validation_loss)):
            raise InputError(f"Expected finite losses, got {training_loss} and {validation_loss}.")
        deltas = self.deltas()
        self.training_losses.append(training_loss)
        self.validation_losses.append(validation_loss)
        epoch, references = len(self.training_losses), self.references
        conditions = {
            layer: threshold.update(epoch, self.training_losses, self.validation_losses)
            for layer, threshold in self.thresholds.items()
        }
        votes = {layer: _below(deltas[layer], self.thresholds[layer].value) for layer in self.layers}
        pi = {layer: [reference] for layer, reference in references.items()}
        removed = decide(self.structure, votes, pi, self.settings.rule)
        if removed:
            prune(self.model, removed, self.example, self.optimizer, self.structure)
        for layer, threshold in self.thresholds.items():
            threshold.pruned = len(removed.get(layer, ())) / len(self.structure.outputs[layer])
        if removed:
            self.structure = self._follow()
        self._begin_epoch()
        values = {layer: threshold.value for layer, threshold in self.thresholds.items()}
        left = {layer: len(self.structure.outputs[layer]) for layer in self.layers}
        return Report(epoch, conditions, values, references, removed, left)

    def _follow(self) -> Structure:
        """Follow the network in training mode, in which heads of deep supervision are called."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.train()
        try:
            return follow(self.model, self.example)
        finally:
            for module, training in modes:
                module.training = training

    def _begin_epoch(self) -> None:
        counts = {layer: len(self.structure.outputs[layer]) for layer in self.layers}
        self.references = {
            layer: int(torch.randint(count, (), generator=self.generator)) for layer, count in counts.items()
        }
        self._sums = {layer: torch.zeros(count, dtype=torch.float64) for layer, count in counts.items()}
        self._samples = 0

    def _collect(self, layer: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self.model.training:
            self._maps[layer] = output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


def _below(deltas: Tensor, threshold: float) -> list[int]:
    return torch.nonzero(deltas < threshold).flatten().tolist()
