"""What does one network of the comparison cost, how right is it, and how many of its digits mean anything?"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

import nanops
from analyses.benchmarks.speed_up import Setting, by_turns, compared
from analyses.benchmarks.timing import seconds_of
from analyses.compress.counting import costs, parameters
from analyses.experiments.comparison.networks import Entry
from analyses.experiments.comparison.resident import PeakGrowth
from analyses.experiments.comparison.tasks.task import Task
from analyses.experiments.comparison.trained import Trained
from analyses.metrics import dice_of_classes
from mcaprobe.campaign import Campaign
from mcaprobe.intervals import student_interval
from mcaprobe.loading import load_input
from mcaprobe.memory import give_back
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.settings import Settings

Row = dict[str, Any]
LABELS = ":output.labels"


@torch.inference_mode()
def scored(network: nn.Module, task: Task) -> tuple[list[list[float]], Row]:
    """Return the Dice of each class on each subject, (subjects, classes), NaN where neither has it; and what was made.

    Returns:
        The cells `windows_skipped` and `executed_share`, over all subjects: 0 and 1 of a network that skips nothing.
    """
    if not _is_converted(network):
        return _dice(network, task), {"windows_skipped": 0.0, "executed_share": 1.0}
    with nanops.count_skipped(network) as skipped:
        found = _dice(network, task)
    total = skipped.total
    return found, {"windows_skipped": total.window_share, "executed_share": total.executed / total.macs}


def _dice(network: nn.Module, task: Task) -> list[list[float]]:
    found = []
    for _, parts in task.subjects():
        predicted = torch.cat([network(x).argmax(1) for x, _ in parts])
        classes = torch.cat([y for _, y in parts])
        found.append(dice_of_classes(predicted, classes, task.counted(classes), len(task.classes)))
    return found


def means(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return each subject's mean over the foreground classes that it or the prediction has."""
    return [math.fsum(s for s in row[1:] if s == s) / sum(s == s for s in row[1:]) for row in scores]


def accuracy(scores: Sequence[Sequence[float]], stock: Sequence[Sequence[float]]) -> Row:
    """Return the cells on Dice: mean over subjects with Student's 95 % interval, by class, and against stock's.

    The difference is paired by subject, and so is its interval.
    """
    mine, theirs = means(scores), means(stock)
    difference = [a - b for a, b in zip(mine, theirs, strict=True)]
    low, high = student_interval(mine)
    less, more = student_interval(difference)
    by_class = {
        f"dice_{k}": math.fsum(column) / len(column) if column else None
        for k, values in enumerate(zip(*scores, strict=True))
        for column in [[s for s in values if s == s]]
    }
    return {
        "subjects": len(mine), "dice": math.fsum(mine) / len(mine), "dice_low": low, "dice_high": high, **by_class,
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


def _is_converted(network: nn.Module) -> bool:
    try:
        nanops.restore(network)
    except nanops.InputError:
        return False
    return True


@torch.inference_mode()
def peak(network: nn.Module, x: Tensor) -> Row:
    """Return by how many bytes the process grew within one forward of x at most."""
    network(x)
    with PeakGrowth() as found:
        network(x)
    return {"peak_bytes": found.bytes}


def in_formats(trained: Trained, which: Entry, x: Tensor) -> tuple[str, nn.Module]:
    """Return the faster of a network with contiguous weights and one with its channels last, and which it is."""
    found = {name: trained.computing(which, formatted) for name, formatted in FORMATS.items()}
    with torch.inference_mode():
        seconds = {name: [] for name in found}  # type: dict[str, list[float]]
        for turn in range(3):
            for name, network in found.items():
                took = seconds_of(lambda network=network: network(x))  # type: ignore[misc]
                seconds[name] += [took] if turn else []
    fastest = min(found, key=lambda name: min(seconds[name]))
    return fastest, found[fastest]


def _channels_last(network: nn.Module) -> nn.Module:
    dims = max(m.weight.ndim for m in network.modules() if isinstance(m, _ConvNd))
    copied = deepcopy(network)
    return copied.to(memory_format=torch.channels_last if dims == 4 else torch.channels_last_3d)  # type: ignore[call-overload]


FORMATS: dict[str, Callable[[nn.Module], nn.Module]] = {"contiguous": lambda network: network,
                                                        "channels last": _channels_last}  # fmt: skip


def timing(
    network: nn.Module, stock: nn.Module, parts: Sequence[Tensor], setting: Setting, say: Callable[[str], None]
) -> Row:
    """Return the cells on the wall clock of all parts: medians; stock by turns in the same minutes."""

    def call(model: nn.Module) -> Callable[[], None]:
        def forwards() -> None:
            for x in parts:
                model(x)

        return forwards

    with torch.inference_mode():
        theirs, ours = by_turns({"stock": call(stock)}, {"": call(network)}, setting, say)
    row = compared(ours[""], theirs)
    wanted = ("repetitions", "ms", "low_ms", "high_ms", "stock_ms", "speed_up", "speed_up_low", "speed_up_high")
    return {name: row[name] for name in wanted}


def digits(network: nn.Module, x: Tensor, samples: int, seed: int = 0) -> tuple[Row, list[Row]]:
    """Return the cells on significant bits and decisions, and a row for each layer, of a campaign in memory.

    Bits: means over a layer's elements that are numbers. The worst layer is the one of the fewest. The output's are
    those of the last convolution; `bits_where_image`: of its voxels where x is not 0.

    Args:
        x: (1, 1, D, H, W).
        samples: n, mode random, emulated.
    """
    logits = _last_convolution(network, x)
    settings = Settings(samples=samples, seed=seed, layers=("*",), keep_moments=(logits,))
    found = Campaign(settings, load_model(network), load_input(x, network, {})).run(None, Observer())
    give_back()
    rows = [row for row in found.table() if row.region == "all"]
    values = {row.layer: row for row in rows if row.bits_mean is not None}
    worst = min(values.values(), key=lambda row: row.bits_mean or 0.0)
    pools = [row for row in rows if row.index_change_rate is not None and row.layer != LABELS]
    labels = next(row for row in rows if row.layer == LABELS)
    decided = sum(row.elements for row in pools)
    cells = {
        "samples": samples, "bits": values[logits].bits_mean,
        "bits_where_image": where_image(found[logits].significant_bits, x),
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


def summed_up(probes: Sequence[Row]) -> Row:
    """Return the cells of several inputs as one: means, Student's 95 % intervals of the output's bits, the worst layer.

    The worst layer is the one that is worst in most inputs.
    """
    worst = Counter(probe["worst_layer"] for probe in probes).most_common(1)[0][0]
    found: Row = {"samples": probes[0]["samples"], "probed": len(probes), "estimator": probes[0]["estimator"]}
    for name in ("bits", "bits_where_image"):
        values = [probe[name] for probe in probes]
        low, high = student_interval(values)
        found |= {name: math.fsum(values) / len(values), f"{name}_low": low, f"{name}_high": high}
    for name in ("worst_bits", "label_flips", "pool_flips"):
        given = [probe[name] for probe in probes if probe[name] is not None]
        found[name] = math.fsum(given) / len(given) if given else None
    return found | {"worst_layer": worst}


@torch.inference_mode()
def _last_convolution(network: nn.Module, x: Tensor) -> str:
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, path=path: called.append(path))
        for path, module in network.named_modules()
        if isinstance(module, _ConvNd)
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return called[-1]


def where_image(bits: Tensor, x: Tensor) -> float:
    """Return the mean of bits (1, classes, D, H, W) or (D, classes, H, W) where x is not 0; NaN where it is nowhere.

    Args:
        x: (1, 1, D, H, W), or with as many slices more at either end.
    """
    by_class = bits[0] if bits.ndim == 5 else bits.movedim(1, 0)
    depth = by_class.shape[1]
    seen = x[0, 0].narrow(0, (x.shape[2] - depth) // 2, depth) != 0
    return float(by_class[:, seen].nanmean())
