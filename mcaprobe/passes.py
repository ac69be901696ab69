"""How do samples pass through a model: all of a chunk side by side, or one at a time, with the same bits?"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from mcaprobe.collecting import Collector, UnitReport, Watched, forward
from mcaprobe.emulator import lockstep
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.lane_blocks import LaneBlocks, empty_moments
from mcaprobe.lanes import lanes_of, pick_lane
from mcaprobe.metrics import Metric, evaluate
from mcaprobe.observer import Observer
from mcaprobe.reducer import Reducer
from mcaprobe.settings import Settings, matches


def _block(settings: Settings, samples: list[int], reference: bool) -> AbstractContextManager[Any]:
    return lockstep(
        samples=samples,
        reference=reference,
        mode=settings.mode,
        seed=settings.seed,
        precision=settings.precision,
        threads=settings.thread_count(),
        route=settings.route,
    )


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
        collector.layer(name, operator, LaneBlocks(lanes[0], runs, blocks, reducer))

    with torch.no_grad(), _block(settings, samples, True) as block:
        spread = block.spread(x)
        y = forward(
            model,
            spread,
            settings,
            Watched(take, observer, reducer),
            report,
            f"samples {samples[0]} to {samples[-1]}",
        )
        report.operators.update(block.operators)
    if metrics:
        for i, run in enumerate(["reference", *map(str, samples)]):
            report.note_metrics(run, evaluate(metrics, pick_lane(y, i)))
    observer.advance(len(samples))
    return report


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
    deviations: dict[int, list[Any]] = {}

    def run(which: str, take: Callable[[str, str, Tensor], None], samples: list[int]) -> None:
        with torch.no_grad(), _block(settings, samples, not samples) as block:
            block.deviations = deviations  # of the unperturbed run, which comes first
            y = forward(model, block.spread(x), settings, Watched(take, observer, reducer), report, which)
            report.operators.update(block.operators)
        if metrics:
            report.note_metrics(str(samples[0]) if samples else "reference", evaluate(metrics, pick_lane(y, 0)))

    def take_reference(name: str, operator: str, tensor: Tensor) -> None:
        lane = lanes_of(tensor)[0]
        report.layers[name] = operator
        moments[name] = [empty_moments(lane) for _ in blocks]
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
