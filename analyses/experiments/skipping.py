"""What do converted networks skip on real slices, what changes in their labels, and what does the wall clock gain?"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

import nanops
from analyses.benchmarks.networks import Subject
from analyses.benchmarks.speed_up import Row, Setting, by_turns, compared
from analyses.benchmarks.timing import threads
from analyses.methods import Method

# Of a network's row (layer "total"): mean_over_layers is the paper's figure, mac_share that of its work. speed_up:
# stock's median in its faster memory format over ours in channels last.
COLUMNS = (
    "network", "input", "pooling", "threshold", "uniform", "layer", "windows", "skipped", "filled", "window_share",
    "mac_share", "executed_share", "mean_over_layers", "nan_at_the_end", "labels", "labels_changed", "threads",
    "repetitions", "stock_format", "stock_ms", "ms", "low_ms", "high_ms", "speed_up", "speed_up_low", "speed_up_high",
)  # fmt: skip
TOTAL = "total"
METHODS = (
    *(Method("conservative", t) for t in (1.0, 0.8, 0.5, 0.4)),
    *(Method("aggressive", t) for t in (1.0, 0.5)),
    *(Method("hybrid", t) for t in (1.0, 0.5)),
    Method(None, 0.5, True),
    Method("conservative", 0.5, True),
    Method("hybrid", 0.5, True),
)


def run(
    subjects: Sequence[Subject], setting: Setting, methods: Sequence[Method] = METHODS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:  # fmt: skip
    """Return a row for each network, method and layer, and one in total with labels and times for each thread count."""
    with torch.inference_mode():
        return [row for subject in subjects for row in _rows(subject, setting, methods, progress)]


def _rows(
    subject: Subject, setting: Setting, methods: Sequence[Method], progress: Callable[[str], None]
) -> Iterator[Row]:
    plain, last = subject.x.contiguous(), subject.x.contiguous(memory_format=torch.channels_last)
    subject.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    converted = {m: m.convert(subject.model) for m in methods}
    labels = subject.model(last).argmax(1)
    about = {"network": subject.network, "input": subject.input}
    times = {}
    for count in setting.threads:
        with threads(count):
            calls = {m.name: partial(model, last) for m, model in converted.items()}
            stock = {"channels_last": partial(subject.model, last), "contiguous": partial(subject.model, plain)}
            times[count] = by_turns(stock, calls, setting, partial(_say, progress, subject, count))
    for method, model in converted.items():
        with nanops.count_skipped(model) as skipped:
            y = model(last)
        cells = about | {"pooling": method.pooling or "", "threshold": method.threshold, "uniform": method.uniform}
        for layer, t in {**skipped.layers, TOTAL: skipped.total}.items():
            shares = {"window_share": t.window_share, "mac_share": t.mac_share, "executed_share": t.executed_share}
            row = cells | {"layer": layer, "windows": t.windows, "skipped": t.skipped, "filled": t.uniform} | shares
            if layer != TOTAL:
                yield row
                continue
            changed = int((y.argmax(1) != labels).sum())
            row |= {"mean_over_layers": skipped.mean_over_layers, "labels": labels.numel(), "labels_changed": changed,
                    "nan_at_the_end": sum(int(r.nans.sum()) for r in skipped.replaced)}  # fmt: skip
            for count, (theirs, ours) in times.items():
                yield row | {"threads": count} | compared(ours[method.name], theirs)


def _say(progress: Callable[[str], None], subject: Subject, count: int, text: str) -> None:
    progress(f"{subject.network}, {subject.input}, {count} threads, {text}")
