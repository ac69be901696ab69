"""What does one pass through a model hand on, and what is said when the model raises in it?"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError, RunFailure
from mcaprobe.lanes import LockstepError
from mcaprobe.observer import Observer
from mcaprobe.recorder import record
from mcaprobe.reducer import Reducer
from mcaprobe.settings import Settings
from mcaprobe.statistics import IndexMoments, Moments

AnyMoments = Moments | IndexMoments


class ModelFailure(RunFailure):
    """The model raised; the sentence names the layer before."""


class Collector(Protocol):
    """Takes the layers of a chunk, in execution order."""

    def layer(self, name: str, operator: str, blocks: Iterable[AnyMoments]) -> None:
        """Take the moments of each block of the chunk, in index order; they are computed while they are taken.

        Where the samples are at hand, `blocks` is a LaneBlocks, from which other things can be computed too.
        """

    def activation(self, name: str, sample: int | None, tensor: Tensor) -> None:
        """Take an activation that the user asked to keep; sample None is the unperturbed run."""


@dataclass
class UnitReport:
    """What a chunk tells beside its moments.

    Attributes:
        layers: Operator of each layer, in execution order.
        aliases: Names that stand for the very same tensor as another layer.
        operators: How each operator was treated: exact, modelled, decomposed or unmodelled.
        metrics: Values of the metrics of the output: "reference" and then each sample's number, as text.
        one_at_a_time: Why the samples could not run side by side; None where they did.
        seconds: Wall clock.
    """

    layers: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    operators: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    one_at_a_time: str | None = None
    seconds: float = 0.0

    def note_metrics(self, run: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.metrics.setdefault(name, {})[run] = value


class Watched:
    """A recorder's sink that remembers the last layer, and whether an exception came from the sink itself."""

    def __init__(self, take: Callable[[str, str, Tensor], None], observer: Observer, reducer: Reducer) -> None:
        self.take = take
        self.reducer = reducer
        self.observer = observer
        self.last: str | None = None
        self.fault: BaseException | None = None

    def __call__(self, name: str, operator: str, tensor: Tensor) -> None:
        self.last = name
        try:
            self.reducer.call(lambda: self.take(name, operator, tensor))
            self.observer.layer(name)
        except BaseException as error:
            self.fault = error
            raise


def forward(model: nn.Module, x: Tensor, settings: Settings, sink: Watched, report: UnitReport, which: str) -> Any:
    """Run the model under the recorder; an exception of the model becomes a ModelFailure that names the layer."""
    try:
        # A model that draws random numbers of its own draws the same ones in every pass.
        with torch.random.fork_rng(devices=[]), record(model, layers=list(settings.layers), sink=sink) as recorder:
            torch.manual_seed(settings.seed)
            y = model(x)
        report.aliases.update(getattr(recorder, "aliases", {}))
        return y
    except (LockstepError, RunFailure, InputError):
        raise
    except Exception as error:
        if error is sink.fault:
            raise
        where = f"after layer {sink.last}" if sink.last else "before its first layer"
        first = (str(error).splitlines() or [""])[0]
        raise ModelFailure(f"The model raised {type(error).__name__} {where}, in {which}: {first}") from error
