"""How do the files of samples become moments? Layer by layer, in index order, in the blocks of every campaign."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from mcaprobe.collecting import Collector, UnitReport
from mcaprobe.errors import RunFailure
from mcaprobe.lane_blocks import LaneBlocks
from mcaprobe.observer import Observer
from mcaprobe.proofs import title
from mcaprobe.reducer import Reducer
from mcaprobe.sample_files import Proof, layers_file
from mcaprobe.settings import Settings, matches
from mcaprobe.verrou import REFERENCE


def fold(
    settings: Settings, folder: Path, proofs: dict[str, Proof], collector: Collector, observer: Observer
) -> UnitReport:
    """Hand each layer with all its samples to the collector; one layer is in memory at a time.

    The result does not depend on the order in which the samples ended.

    Raises:
        RunFailure: a sample has other layers than the baseline.
    """
    reference = proofs[REFERENCE]
    report = UnitReport(layers=reference.layers, aliases=reference.aliases)
    names = {"reference": REFERENCE, **{str(i): str(i) for i in range(settings.samples)}}
    for run, name in names.items():
        report.note_metrics(run, proofs[name].metrics)
    with ExitStack() as stack:
        files = {
            run: stack.enter_context(safetensors.safe_open(layers_file(folder, run), framework="pt"))
            for run in names.values()
        }
        for run in names.values():
            _check(run, files[run], files[REFERENCE], proofs[run], reference)
        reducer = stack.enter_context(Reducer(settings.thread_count()))
        for layer, operator in reference.layers.items():
            tensors = {run: files[run].get_tensor(layer) for run in names.values()}
            reducer.call(lambda: _hand_on(settings, layer, operator, tensors, collector, reducer))  # noqa: B023
            observer.layer(layer)
    return report


def _hand_on(
    settings: Settings, layer: str, operator: str, runs: dict[str, Tensor], collector: Collector, reducer: Reducer
) -> None:
    if matches(layer, settings.keep_samples):
        for run, tensor in runs.items():
            collector.activation(layer, None if run == REFERENCE else int(run), tensor)
    samples = {int(run): tensor for run, tensor in runs.items() if run != REFERENCE}
    collector.layer(layer, operator, LaneBlocks(runs[REFERENCE], samples, settings.blocks(), reducer))


def _check(run: str, file: Any, known: Any, proof: Proof, reference: Proof) -> None:
    """Raise RunFailure where a run recorded other layers than the baseline."""
    if list(proof.layers) != list(reference.layers):
        other = sorted(set(proof.layers) ^ set(reference.layers)) or [next(iter(proof.layers))]
        raise RunFailure(
            f"{title(run).capitalize()} did not run the layers of the baseline (the first is {other[0]}): the digits "
            "of such a layer are not defined."
        )
    for layer in reference.layers:
        mine, theirs = file.get_slice(layer), known.get_slice(layer)
        if (mine.get_shape(), mine.get_dtype()) != (theirs.get_shape(), theirs.get_dtype()):
            raise RunFailure(
                f"Layer {layer} of {title(run)} is {mine.get_dtype()} {tuple(mine.get_shape())}, in the baseline "
                f"{theirs.get_dtype()} {tuple(theirs.get_shape())}: its digits are not defined."
            )
