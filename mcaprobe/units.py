"""How does one chunk of samples run? A pure function of settings, model, input and chunk.

One pass carries the unperturbed run and all samples of the chunk (`lockstep`); each layer is reduced to the moments of
its blocks as soon as it is computed. A model that only a single run can follow (it branches on a perturbed number, it
leaves torch) is run once unperturbed and then one sample at a time: the same bits, since every bit is a function of
(seed, sample, call number, element).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mcaprobe.emulator import lockstep
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.lanes import LockstepError, lanes_of, pick_lane
from mcaprobe.metrics import Metric, evaluate
from mcaprobe.observer import Observer
from mcaprobe.recorder import record
from mcaprobe.reducer import Reducer
from mcaprobe.settings import Settings, matches
from mcaprobe.statistics import IndexMoments, Moments

AnyMoments = Moments | IndexMoments


class ModelFailure(RunFailure):
    """The model raised; the sentence names the layer before."""


class Collector(Protocol):
    """Takes the layers of a chunk, in execution order."""

    def layer(self, name: str, operator: str, blocks: Iterator[AnyMoments]) -> None:
        """Take the moments of each block of the chunk, in index order; they are computed while they are taken."""

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


class _Watched:
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


def _forward(model: nn.Module, x: Tensor, settings: Settings, sink: _Watched, report: UnitReport, which: str) -> Any:
    """Run the model under the recorder; an exception of the model becomes a ModelFailure that names the layer."""
    try:
        with record(model, layers=list(settings.layers), sink=sink) as recorder:
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


def _block(settings: Settings, samples: list[int], reference: bool) -> AbstractContextManager[Any]:
    return lockstep(
        samples=samples,
        reference=reference,
        mode=settings.mode,
        seed=settings.seed,
        precision=settings.precision,
        threads=settings.thread_count(),
    )


def _empty(reference: Tensor) -> AnyMoments:
    return Moments.empty(reference) if reference.is_floating_point() else IndexMoments.empty(reference)


def side_by_side(
    settings: Settings, model: nn.Module, x: Tensor, blocks: list[range], metrics: list[Metric],
    collector: Collector, observer: Observer, reducer: Reducer,
) -> UnitReport:  # fmt: skip
    """Run the unperturbed run and all samples of the blocks in one pass; each layer goes to the collector.

    Raises:
        LockstepError: the model cannot run so.
        RunFailure: the model raised; the sentence names the layer.
    """
    report = UnitReport()
    samples = [s for block in blocks for s in block]

    def take(name: str, operator: str, tensor: Tensor) -> None:
        lanes = lanes_of(tensor)
        if len(lanes) == 1:  # it does not depend on the input: the same in every run
            lanes = lanes * (len(samples) + 1)
        runs = dict(zip(samples, lanes[1:], strict=True))
        report.layers[name] = operator
        if matches(name, settings.keep_samples):
            for sample, lane in zip([None, *samples], lanes, strict=True):
                collector.activation(name, sample, lane)
        collector.layer(name, operator, _reduced(lanes[0], runs, blocks, reducer))

    with torch.no_grad(), _block(settings, samples, True) as block:
        spread = block.spread(x)
        y = _forward(model, spread, settings, _Watched(take, observer, reducer), report, f"samples {samples[0]} to {samples[-1]}")
        report.operators.update(block.operators)
    if metrics:
        for i, run in enumerate(["reference", *map(str, samples)]):
            report.note_metrics(run, evaluate(metrics, pick_lane(y, i)))
    observer.advance(len(samples))
    return report


def _reduced(reference: Tensor, runs: Mapping[int, Tensor], blocks: list[range], reducer: Reducer) -> Iterator[AnyMoments]:
    def reduce(block: range) -> AnyMoments:
        moments: Any = _empty(reference)
        for sample in block:
            moments.update(runs[sample])
        return moments

    return reducer.each(reduce, blocks)


def one_at_a_time(
    settings: Settings, model: nn.Module, x: Tensor, blocks: list[range], metrics: list[Metric],
    collector: Collector, observer: Observer, reducer: Reducer,
) -> UnitReport:  # fmt: skip
    """Run the unperturbed run, then each sample alone; the moments of all layers of the blocks are in memory together.

    Raises:
        RunFailure: the model raised, or a sample ran other layers or shapes than the unperturbed run.
    """
    report = UnitReport()
    moments: dict[str, list[Any]] = {}

    def run(which: str, take: Callable[[str, str, Tensor], None], samples: list[int]) -> None:
        with torch.no_grad(), _block(settings, samples, not samples) as block:
            y = _forward(model, block.spread(x), settings, _Watched(take, observer, reducer), report, which)
            report.operators.update(block.operators)
        if metrics:
            report.note_metrics(str(samples[0]) if samples else "reference", evaluate(metrics, pick_lane(y, 0)))

    def take_reference(name: str, operator: str, tensor: Tensor) -> None:
        lane = lanes_of(tensor)[0]
        report.layers[name] = operator
        moments[name] = [_empty(lane) for _ in blocks]
        if matches(name, settings.keep_samples):
            collector.activation(name, None, lane)

    run("the unperturbed run", take_reference, [])
    for i, block in enumerate(blocks):
        for sample in block:
            met: set[str] = set()

            def take_sample(name: str, operator: str, tensor: Tensor, i: int = i, sample: int = sample) -> None:
                met.add(name)  # noqa: B023  (used within this turn of the loop only)
                lane = lanes_of(tensor)[0]
                _update(moments, name, i, sample, lane)
                if matches(name, settings.keep_samples):
                    collector.activation(name, sample, lane)

            run(f"sample {sample}", take_sample, [sample])
            if met != set(moments):
                missing = sorted(set(moments) - met)
                raise RunFailure(
                    f"Sample {sample} did not run layer {missing[0]} of the unperturbed run "
                    f"({len(missing)} in all): the digits of such a layer are not defined."
                )
            observer.advance(1)
    for name in list(moments):
        collector.layer(name, report.layers[name], iter(moments.pop(name)))
    return report


def _update(moments: dict[str, list[Any]], name: str, block: int, sample: int, lane: Tensor) -> None:
    if name not in moments:
        raise RunFailure(f"Sample {sample} ran layer {name}, which the unperturbed run did not run.")
    try:
        moments[name][block].update(lane)
    except InputError as error:
        raise RunFailure(f"Layer {name} of sample {sample} is not that of the unperturbed run: {error}") from error


def run_unit(
    settings: Settings, model: nn.Module, x: Tensor, blocks: list[range], metrics: list[Metric],
    collector: Collector, observer: Observer, alone: str | None = None,
) -> UnitReport:  # fmt: skip
    """Run the samples of consecutive blocks.

    Args:
        alone: Why samples have to run one at a time; None: side by side.
    Raises:
        LockstepError: the model cannot run side by side; call again with the reason as `alone`.
        RunFailure: the model raised; the sentence names the layer.
    """
    start = time.perf_counter()
    observer.chunk(blocks[0].start, blocks[-1].stop - 1)
    way = side_by_side if alone is None else one_at_a_time
    try:
        with Reducer(settings.thread_count()) as reducer:
            report = way(settings, model, x, blocks, metrics, collector, observer, reducer)
    except ModelFailure as error:
        if alone is None:  # perhaps only because a lane tensor is no plain tensor: alone it shows
            raise LockstepError(str(error)) from error
        raise
    report.one_at_a_time = alone
    report.seconds = time.perf_counter() - start
    return report
