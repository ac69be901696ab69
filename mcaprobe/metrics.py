"""How many digits does a number computed from the model's output have?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from mcaprobe.errors import RunFailure
from mcaprobe.models import import_object
from mcaprobe.statistics import Moments

PREFIX = "metric:"


@dataclass(frozen=True)
class Metric:
    """A function of the model's output that returns one number, or a dict of numbers.

    `by_name`: it was asked for as `package.module:function`, so that another process finds it.
    """

    name: str
    spec: str
    function: Callable[[Any], Any]
    by_name: bool = False


def load_metric(metric: str | Callable[[Any], Any]) -> Metric:
    """Return the metric of `package.module:function` or of a function; raise InputError where there is none."""
    if isinstance(metric, str):
        return Metric(metric.rpartition(":")[2], metric, import_object(metric, "metric"), True)
    name = getattr(metric, "__name__", type(metric).__name__)
    return Metric(name, f"{getattr(metric, '__module__', '')}:{name}", metric)


def evaluate(metrics: Sequence[Metric], output: Any) -> dict[str, float]:
    """Return each metric of one run's output, in ordinary arithmetic, on one thread.

    One thread, since a stock sum over the whole tensor has other bits on two.

    Raises:
        RunFailure: a metric raised, or returned something that is no number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values: dict[str, float] = {}
        with torch.no_grad():
            output = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, output)
            for metric in metrics:
                values.update(_numbers(metric, output))
        return values
    finally:
        torch.set_num_threads(threads)


def _numbers(metric: Metric, output: Any) -> dict[str, float]:
    try:
        result = metric.function(output)
        named = result if isinstance(result, Mapping) else {"": result}
        return {f"{metric.name}.{key}" if key else metric.name: float(value) for key, value in named.items()}
    except Exception as error:  # whatever the user's function raises
        raise RunFailure(f"The metric {metric.spec} raised {type(error).__name__}: {error}") from error


def moments_of(values: Mapping[str, float], blocks: Sequence[range]) -> Moments:
    """Return the moments of a metric, a tensor of shape (): "reference" and each sample's number, by blocks."""
    reference = torch.tensor(values["reference"], dtype=torch.float64)
    total: Moments | None = None
    for block in blocks:
        moments = Moments.empty(reference)
        for sample in block:
            moments.update(torch.tensor(values[str(sample)], dtype=torch.float64))
        total = moments if total is None else total.merge(moments)
    if total is None:
        raise ValueError("Expected at least one block of samples.")
    return total


def as_numbers(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return metrics read from JSON, where NaN and infinities are strings, as floats."""
    return {name: {run: float(value) for run, value in values.items()} for name, values in metrics.items()}
