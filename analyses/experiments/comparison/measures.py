"""What does one network of the comparison cost, how right is it, and how many of its digits mean anything?"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

import nanops
from analyses.benchmarks.speed_up import Setting, by_turns, compared
from analyses.compress.counting import costs, parameters
from analyses.metrics import dice_of_classes
from analyses.statistics import bootstrap_interval
from mcaprobe.campaign import Campaign
from mcaprobe.loading import load_input
from mcaprobe.memory import LiveBytes
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.settings import Settings

Row = dict[str, Any]
LABELS = ":output.labels"


@torch.inference_mode()
def dice(network: nn.Module, images: Tensor, classes: Tensor, count: int) -> list[list[float]]:
    """Return the Dice of each class on each volume, (volumes, count); NaN where neither has the class."""
    found = []
    for x, y in zip(images, classes, strict=True):
        predicted = network(x[None])[0].argmax(0)
        found.append(dice_of_classes(predicted, y, torch.ones_like(y, dtype=torch.bool), count))
    return found


def means(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return each volume's mean over the foreground classes that it or the prediction has."""
    return [math.fsum(s for s in row[1:] if s == s) / sum(s == s for s in row[1:]) for row in scores]


def accuracy(scores: Sequence[Sequence[float]], stock: Sequence[Sequence[float]]) -> Row:
    """Return the cells on Dice: mean over volumes with its 95 % bootstrap interval, by class, and against stock's.

    The difference is paired by volume, and so is its interval.
    """
    mine, theirs = means(scores), means(stock)
    difference = [a - b for a, b in zip(mine, theirs, strict=True)]
    low, high = bootstrap_interval(mine)
    less, more = bootstrap_interval(difference)
    by_class = {
        f"dice_{k}": math.fsum(column) / len(column) if column else None
        for k, values in enumerate(zip(*scores, strict=True))
        for column in [[s for s in values if s == s]]
    }
    return {
        "volumes": len(mine), "dice": math.fsum(mine) / len(mine), "dice_low": low, "dice_high": high, **by_class,
        "difference": math.fsum(difference) / len(difference), "difference_low": less, "difference_high": more,
    }  # fmt: skip


def size(network: nn.Module, shape: Sequence[int]) -> Row:
    """Return parameters and multiply-accumulates of a float network, all and those of kernels that are not 0.

    A kernel is the weights between an input and an output channel; `macs` counts each product of the shapes once.
    """
    shares = _densities(network)
    dense, sparse = costs(network, shape), costs(network, shape, {k: v for k, v in shares.items() if 0 < v < 1})
    off = sum(round((1 - share) * network.get_parameter(name).numel()) for name, share in shares.items())
    return {
        "parameters": parameters(network)[0], "parameters_not_zero": parameters(network)[0] - off,
        "macs": round(sum(c.products for c in dense)), "macs_not_zero": round(sum(c.products for c in sparse)),
    }  # fmt: skip


def _densities(network: nn.Module) -> dict[str, float]:
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, _ConvNd):
            used = (module.weight.detach().flatten(2) != 0).any(2)
            found[f"{path}.weight"] = float(used.double().mean())
    return found


@torch.inference_mode()
def executed(network: nn.Module, images: Tensor, macs: int) -> Row:
    """Return the multiply-accumulates that the kernels made for a volume, mean over volumes, and skipped windows.

    Args:
        macs: What a network makes that skips nothing.
    """
    if not _is_converted(network):
        return {"macs_executed": macs, "windows_skipped": 0.0}
    with nanops.count_skipped(network) as skipped:
        for x in images:
            network(x[None])
    return {"macs_executed": round(skipped.total.executed / len(images)), "windows_skipped": skipped.total.window_share}


def _is_converted(network: nn.Module) -> bool:
    try:
        nanops.restore(network)
    except nanops.InputError:
        return False
    return True


@torch.inference_mode()
def peak(network: nn.Module, image: Tensor) -> Row:
    """Return the most bytes that tensors made within one forward of a volume (C, *size) hold at a time."""
    network(image[None])
    with LiveBytes() as found:
        network(image[None])
    return {"peak_bytes": found.peak}


def timing(network: nn.Module, stock: nn.Module, image: Tensor, setting: Setting, say: Callable[[str], None]) -> Row:
    """Return the cells on wall clock of a volume (C, *size): medians, stock by turns in the same minutes."""

    def call(model: nn.Module) -> Callable[[], Tensor]:
        return lambda: model(image[None])

    with torch.inference_mode():
        theirs, ours = by_turns({"contiguous": call(stock)}, {"": call(network)}, setting, say)
    row = compared(ours[""], theirs)
    wanted = ("repetitions", "ms", "low_ms", "high_ms", "stock_ms", "speed_up", "speed_up_low", "speed_up_high")
    return {name: row[name] for name in wanted}


def digits(network: nn.Module, image: Tensor, samples: int, seed: int = 0) -> tuple[Row, list[Row]]:
    """Return the cells on significant bits and decisions, and a row for each layer, of a campaign in memory.

    Bits: means over a layer's elements that are numbers. The worst layer is the one of the fewest.

    Args:
        image: (C, *size).
        samples: n, mode random, emulated.
    """
    settings = Settings(samples=samples, seed=seed, layers=("*",), keep_moments=())
    found = Campaign(settings, load_model(network), load_input(image[None], network, {})).run(None, Observer())
    rows = [row for row in found.table() if row.region == "all"]
    values = [row for row in rows if row.bits_mean is not None]
    worst = min(values, key=lambda row: row.bits_mean or 0.0)
    pools = [row for row in rows if row.index_change_rate is not None and row.layer != LABELS]
    labels = next(row for row in rows if row.layer == LABELS)
    decided = sum(row.elements for row in pools)
    cells = {
        "samples": samples, "bits": values[-1].bits_mean, "bits_p05": values[-1].bits_p05,
        "worst_layer": worst.layer, "worst_bits": worst.bits_mean, "label_flips": labels.index_change_rate,
        "pool_flips": sum((row.index_change_rate or 0.0) * row.elements for row in pools) / decided if pools else None,
        "estimator": str(found.estimator),
    }  # fmt: skip
    layers = [
        {"layer": row.layer, "operator": row.operator, "elements": row.elements, "bits": row.bits_mean,
         "bits_p05": row.bits_p05, "share_nan": row.share_nan, "flips": row.index_change_rate}
        for row in rows
    ]  # fmt: skip
    return cells, layers
