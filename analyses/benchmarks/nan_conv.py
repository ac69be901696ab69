"""How fast is the NaN convolution beside torch's own, both timed by turns in the same run?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import nanops
from analyses.benchmarks.nan_cases import CASE_PATTERNS, CASES, GROWING, GROWING_PATTERNS, Case, with_nan
from analyses.benchmarks.networks import Subject, convolutional
from analyses.benchmarks.speed_up import Row, Setting, by_turns, compared, judged
from analyses.benchmarks.timing import threads
from analyses.methods import Method
from nanops import functional, ledger

CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
NAN_CONV = {1: functional.nan_conv1d, 2: functional.nan_conv2d, 3: functional.nan_conv3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
OPERATORS, FIRST, GROWTH, TOTAL = "operators", "channels first", "growing sizes", "all convolutions"
PARTS = (
    (OPERATORS, CASES, CASE_PATTERNS),
    (FIRST, tuple(replace(case, least={}) for case in CASES if case.groups == 1), CASE_PATTERNS[:3]),
    (GROWTH, GROWING, GROWING_PATTERNS),
)
LEAST_OF_A_NETWORK = 0.97
NETWORK_METHODS = (Method("conservative", 0.5), Method("aggressive", 0.5), Method(None, 0.5))
# speed_up: stock's median, in its faster memory format, over ours; ideal: what skipping alone would give;
# executed: multiply-accumulates that our kernel made, of those of a dense one.
COLUMNS = (
    "part", "subject", "pattern", "threads", "repetitions", "skipped", "executed", "route", "stock_format", "stock_ms",
    "stock_low_ms", "stock_high_ms", "ms", "low_ms", "high_ms", "speed_up", "speed_up_low", "speed_up_high",
    "speed_up_fastest", "ideal", "least", "met",
)  # fmt: skip


def run(setting: Setting, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return a row for each case, pattern and thread count, and for each convolution of the networks."""
    short = replace(setting, seconds=setting.seconds / 3, repetitions=min(setting.repetitions, 3))
    rows = list(_rows(setting, progress))
    for subject in convolutional():
        for method in NETWORK_METHODS:
            rows += network(subject, method, short, progress)
    return rows


def _rows(setting: Setting, progress: Callable[[str], None]) -> Iterator[Row]:
    for count in setting.threads:
        with threads(count), torch.inference_mode():
            for part, cases, patterns in PARTS:
                for case in cases:
                    for row in time_case(case, patterns, setting, progress, last=part != FIRST):
                        yield {"part": part, "subject": case.name, "threads": count} | row


def network(
    subject: Subject, method: Method, setting: Setting, progress: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Return a row for each convolution of a converted network, on the NaNs that arise there, and one for their sum."""
    rows: list[Row] = []
    with torch.inference_mode():
        inputs = convolution_inputs(subject, method)
        for count in setting.threads:
            with threads(count):
                here = [_layer(name, module, x, setting, progress) for name, (module, x) in inputs.items()]
            stock, ours = (sum(row[name] for row in here) for name in ("stock_ms", "ms"))
            total = {"subject": TOTAL, "repetitions": setting.repetitions, "stock_ms": stock, "ms": ours}
            total |= judged(stock / ours, LEAST_OF_A_NETWORK)
            part = f"{subject.network}, {subject.input}"
            pattern = f"{method.pooling}, {method.threshold:g}" if method.pooling else "none"
            rows += [{"part": part, "pattern": pattern, "threads": count} | row for row in (*here, total)]
    return rows


def convolution_inputs(subject: Subject, method: Method) -> dict[str, tuple[torch.nn.Conv2d, Tensor]]:
    """Return the input of each convolution of the converted network, channels last, and the stock module."""
    model = subject.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    converted = nanops.convert(model, method.pooling, method.threshold, uniform=method.uniform)
    stock = dict(model.named_modules())
    found: dict[str, tuple[torch.nn.Conv2d, Tensor]] = {}

    def keep(name: str, args: tuple[Any, ...]) -> None:
        found[name] = (stock[name], args[0].detach().contiguous(memory_format=torch.channels_last))

    for name, module in converted.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, args, name=name: keep(name, args))
    converted(subject.x.contiguous(memory_format=torch.channels_last))
    return found


def _layer(name: str, module: torch.nn.Conv2d, x: Tensor, setting: Setting, progress: Callable[[str], None]) -> Row:
    clean = x.nan_to_num(nan=0.0)
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    options: dict[str, Any] = {
        "stride": module.stride, "padding": module.padding, "dilation": module.dilation, "groups": module.groups,
    }  # fmt: skip
    stock = {
        "channels_last": partial(CONV[2], clean, weight.contiguous(memory_format=torch.channels_last), bias, **options),
        "contiguous": partial(CONV[2], clean.contiguous(), weight.contiguous(), bias, **options),
    }
    ours = partial(functional.nan_conv2d, x, weight, bias, **options)
    theirs, found = by_turns(stock, {"ours": ours}, setting, lambda text: progress(f"{name}, {text}"))
    return {"subject": name} | compared(found["ours"], theirs) | work(ours)


def time_case(
    case: Case, patterns: Iterable[str], setting: Setting, progress: Callable[[str], None] = lambda _: None,
    last: bool = True,
) -> list[Row]:  # fmt: skip
    """Return a row for each pattern: stock in both memory formats and ours on each pattern, by turns.

    Args:
        last: Whether ours takes channels last; if not, contiguous images.
    """
    x, weight, bias = case.operands(setting.seed)
    stock = {
        name: partial(CONV[case.dims], x.contiguous(memory_format=form), weight.contiguous(memory_format=form), bias,
                      padding=case.kernel // 2, groups=case.groups)
        for name, form in (("channels_last", LAST[case.dims]), ("contiguous", torch.contiguous_format))
    }  # fmt: skip
    form = LAST[case.dims] if last else torch.contiguous_format
    ours = {
        pattern: partial(NAN_CONV[case.dims], with_nan(x, pattern, setting.seed).contiguous(memory_format=form),
                         weight.contiguous(memory_format=form), bias, padding=case.kernel // 2, groups=case.groups)
        for pattern in patterns
    }  # fmt: skip
    theirs, found = by_turns(stock, ours, setting, lambda text: progress(f"{case.name}, {text}"))
    return [
        {"pattern": pattern} | compared(found[pattern], theirs, case.least.get(pattern)) | work(call)
        for pattern, call in ours.items()
    ]


def work(call: Callable[[], Any]) -> Row:
    """Return the cells of a row that say what a call skips and executes, as the operator itself reports it."""
    with ledger.listen() as calls:
        call()
    windows = sum(c.windows * len(c.skipped) for c in calls)
    skipped = sum(int(c.skipped.sum()) for c in calls) / windows
    executed = sum(int(c.executed.sum()) for c in calls)
    dense = sum(c.windows * c.macs * len(c.skipped) for c in calls)
    return {
        "skipped": skipped, "executed": executed / dense, "route": "+".join(sorted({c.route for c in calls})),
        "ideal": 1 / (1 - skipped) if skipped < 1 else float("inf"),
    }  # fmt: skip
