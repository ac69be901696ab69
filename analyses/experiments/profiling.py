"""Where does the time of one slice with brain go: in which of torch's operators, and how much outside of them?"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from analyses.benchmarks.timing import seconds_of, threads
from analyses.brains import Brain
from analyses.experiments.counting import Row
from analyses.experiments.wall_clock import Config, converted, plan_of
from analyses.experiments.ways import BEST, Way, name_of, segment

OUTSIDE = "outside torch's operators (our kernels, Python)"
REST = "other operators of torch"
LEAST = 0.01  # of the time: operators below are summed


@torch.inference_mode()
def subject(
    network: nn.Module, brain: Brain, config: Config, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Return a row for each operator: seconds of a slice in itself, without those that it calls, on one thread."""
    plan, models = plan_of(brain, config.plane, 1), converted(network, [None, BEST])
    middle = plan.timed[len(plan.timed) // 2]
    rows = []
    with threads(1):
        for method, model in models.items():
            progress(f"{brain.name}: profile of {name_of(method)}")
            call = partial(segment, model, brain.image, config.plane, [middle])
            call()
            about = {"subject": brain.name, "slice": middle, "threads": 1, "repetitions": config.repetitions}
            rows += [about | Way(method).columns | row for row in operators(call, config.repetitions)]
    return rows


def operators(call: Callable[[], object], repetitions: int) -> list[Row]:
    """Return operator, calls, seconds and share of one call, the longest first; last what is left of the clock."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        total = sum(seconds_of(call) for _ in range(repetitions)) / repetitions
    events = [
        (event.key, event.count / repetitions, event.self_cpu_time_total / 1e6 / repetitions)
        for event in found.key_averages()
    ]  # fmt: skip
    large = sorted((event for event in events if event[2] >= LEAST * total), key=lambda event: -event[2])
    small = [event for event in events if event[2] < LEAST * total]
    inside = sum(seconds for _, _, seconds in events)
    lines = [*large, (REST, sum(n for _, n, _ in small), sum(s for _, _, s in small)), (OUTSIDE, 0.0, total - inside)]
    return [
        {"operator": name, "calls": calls, "seconds": seconds, "share": seconds / total}
        for name, calls, seconds in lines
    ]
