"""What are the rows of the comparison? Each is two parts: what a network gets right, and how long it takes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from analyses.benchmarks.speed_up import Setting
from analyses.benchmarks.timing import threads
from analyses.experiments.comparison import measures
from analyses.experiments.comparison.networks import STOCK, Learning, entry
from analyses.experiments.comparison.trained import Trained
from analyses.experiments.counting import Row, Tables

Say = Callable[[str], None]
Measure = Callable[[str, "Config", Trained, Say], Tables]
ABOUT = (
    "Every network had the same steps, batches, rates and initial seed; magnitude pruning without fine-tuning, int8, "
    "bfloat16 and NaN came after the training, without any more of it. macs: products of the shapes, each once, of one "
    "part (a head, or a stack of slices); macs_not_zero: without kernels that are 0; executed_share: of the products "
    "of the same network, those that the NaN kernels made, over all test subjects. ms: median of forwards of all timed "
    "parts, stock timed before, between and after; format, stock_format: of the weights, the faster of two. "
    "peak_bytes: by which the process grew within one forward of one part. low, high of dice, its difference and bits: "
    "Student's 95 % interval, over subjects or probed inputs. bits: significant bits of the logits, mean over elements "
    "and probed inputs, emulated, mode random; bits_where_image: over voxels where the image is not 0. worst_layer: of "
    "the fewest bits in most of the inputs; worst_bits: mean over them. label_flips, pool_flips: share of labels, and "
    "of indices of the pools, that differ from the IEEE run. dice: mean of the foreground classes and subjects; "
    "difference: against stock, paired."
)


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows, apart from the machine.

    Args:
        samples: n, perturbed runs, mode random.
        repetitions: Of the timing, each with stock before and after; seconds: how long a call is repeated at a time.
        threads: Of torch; each is timed, the first one counts for all else.
    """

    learning: Learning = field(default_factory=Learning)
    samples: int = 10
    repetitions: int = 5
    seconds: float = 0.1
    threads: tuple[int, ...] = (1,)


def right(name: str, config: Config, trained: Trained, say: Say) -> Tables:
    """Return the table `rows` of accuracy, size and digits, and what these are means of.

    Returns:
        `rows`; `dice` by subject and class, `bits` by probed input, `layers` by input and layer.
    """
    which, task = entry(name), config.learning.task
    with threads(config.threads[0]):
        say(f"{which.name}: labels")
        scores, made = _scored(name, trained)
        theirs, _ = _scored(STOCK, trained)
        network = trained.computing(which)
        found: Row = {
            "network": which.name, **measures.accuracy(scores, theirs),
            **measures.size(trained.shaped(which), tuple(task.timed()[0].shape)), **made,
        }  # fmt: skip
        layers: list[Row] = []
        bits: list[Row] = []
        if not which.unprobed:
            say(f"{which.name}: {config.samples} perturbed runs")
            probes = []
            for i, x in enumerate(task.probed()):
                cells, each = measures.digits(network, x, config.samples)
                probes.append(cells)
                layers += [{"input": i, **layer} for layer in each]
            found |= measures.summed_up(probes)
            bits = [{"network": which.name, "input": i, **cells} for i, cells in enumerate(probes)]
    subjects = [subject for subject, _ in task.subjects()]
    return {
        "rows": [found | {"no_bits": which.unprobed}],
        "dice": [
            {"network": which.name, "subject": subject, "class": label, "dice": value if value == value else None}
            for subject, values in zip(subjects, scores, strict=True)
            for label, value in zip(task.classes, values, strict=True)
        ],
        "bits": bits,
        "layers": [{"network": which.name, **layer} for layer in layers],
    }  # fmt: skip


def _scored(name: str, trained: Trained) -> tuple[list[list[float]], Row]:
    """Return `measures.scored` of a row's network, once for all rows that are held against it."""
    if name not in trained.scored:
        trained.scored[name] = measures.scored(trained.computing(entry(name)), trained.learning.task)
    return trained.scored[name]


def fast(name: str, config: Config, trained: Trained, say: Say) -> Tables:
    """Return the table `times`: wall clock on each number of threads, stock beside it, and peak memory."""
    which, parts = entry(name), config.learning.task.timed()
    rows: list[dict[str, Any]] = []
    for count in config.threads:
        with threads(count):
            say(f"{which.name}: {count} threads")
            format, network = measures.in_formats(trained, which, parts[0])
            stock_format, stock = measures.in_formats(trained, entry(STOCK), parts[0])
            setting = Setting(config.repetitions, (count,), config.seconds)
            rows.append({
                "network": which.name, "threads": count, "parts": len(parts), "format": format,
                "stock_format": stock_format, **measures.timing(network, stock, parts, setting, say),
                **measures.peak(network, parts[0]),
            })  # fmt: skip
    return {"times": rows}
