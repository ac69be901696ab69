"""How does one chunk of samples run? A pure function of settings, model, input and chunk.

One pass carries the unperturbed run and all samples of the chunk (`lockstep`); each layer is reduced to the moments of
its blocks as soon as it is computed. A model that only a single run can follow (it branches on a perturbed number, it
leaves torch) is run once unperturbed and then one sample at a time: the same bits, since every bit is a function of
(seed, sample, call number, element).
"""

import time

from torch import Tensor, nn

from mcaprobe.collecting import Collector, ModelFailure, UnitReport
from mcaprobe.lanes import LockstepError
from mcaprobe.metrics import Metric
from mcaprobe.observer import Observer
from mcaprobe.passes import one_at_a_time, side_by_side
from mcaprobe.reducer import Reducer
from mcaprobe.settings import Settings


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
