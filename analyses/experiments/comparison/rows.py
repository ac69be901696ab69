"""What are the rows of the comparison? Each one is a part by itself: a network, all its measures, stock beside it."""

from collections.abc import Callable
from dataclasses import replace

from analyses.benchmarks.speed_up import Setting
from analyses.benchmarks.timing import threads
from analyses.experiments.comparison import measures
from analyses.experiments.comparison.networks import STOCK, Entry, Trained, entry
from analyses.experiments.counting import Row, Tables
from analyses.training.synthetic_heads import CLASSES, UNSEEN, head

ABOUT = (
    "Synthetic heads; every network had the same batches, steps and rates; pruning, int8, bfloat16 and NaN came after "
    "the training, without any more of it. macs: products of the shapes, each once; macs_not_zero: without kernels "
    "that are 0; macs_executed: what the kernels made, mean over the test volumes. ms: median of one forward of one "
    "volume, stock timed before, between and after. peak_bytes: of tensors made in one forward. bits: significant bits "
    "of the output, mean over its elements, emulated, mode random, of one head of fewer voxels. label_flips, "
    "pool_flips: share of labels, and of indices of the pools, that differ from the IEEE run. dice: mean of the "
    "foreground classes and volumes, 95 % bootstrap over volumes; difference: against stock, paired."
)


def row(name: str, trained: Trained, say: Callable[[str], None]) -> Tables:
    """Return the tables of a row: `rows` with its measures, `dice` by volume and class, `layers` with their bits."""
    which, config = entry(name), trained.config
    with threads(config.threads):
        return _measured(which, trained, say)


def _measured(which: Entry, trained: Trained, say: Callable[[str], None]) -> Tables:
    config, (images, classes) = trained.config, trained.unseen
    say(f"{which.name}: training")
    shaped, network = trained.shaped(which), trained.computing(which)
    stock = trained.network(entry(STOCK).family)
    say(f"{which.name}: measuring")
    scores = measures.dice(network, images, classes, CLASSES)
    theirs = scores if which.name == STOCK else measures.dice(stock, images, classes, CLASSES)
    size = measures.size(shaped, (1, *images.shape[1:]))
    setting = Setting(config.repetitions, (config.threads,), config.seconds)
    found: Row = {
        "network": which.name, **measures.accuracy(scores, theirs), **size,
        **measures.executed(network, images, size["macs"]), **measures.peak(network, images[0]),
        "threads": config.threads, **measures.timing(network, stock, images[0], setting, say),
    }  # fmt: skip
    layers: list[Row] = []
    if not which.unprobed:
        say(f"{which.name}: {config.samples} perturbed runs")
        small, _ = head(replace(config.heads, size=config.probed), UNSEEN, 0)
        cells, layers = measures.digits(network, small, config.samples)
        found |= cells
    found |= {"no_bits": which.unprobed}
    return {
        "rows": [found],
        "dice": [
            {"network": which.name, "volume": i, "class": k, "dice": value if value == value else None}
            for i, values in enumerate(scores) for k, value in enumerate(values)
        ],
        "layers": [{"network": which.name, **layer} for layer in layers],
    }  # fmt: skip
