"""What does one perturbed operator cost against stock torch, on one thread?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from analyses.benchmarks.cases import Operator
from analyses.benchmarks.config import Config
from analyses.benchmarks.rows import FORMATS, OPERATORS, PERTURBED, STOCK, VARIANTS, Row, ratios, timed
from analyses.benchmarks.timing import Call, calls_within, interleave, threads
from mcaprobe.emulator import perturb

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def run(config: Config, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return a row for each operator in stock torch and by route and mode; seconds are of one call."""
    with threads(1):
        return [row for operator in config.operators for row in _operator_rows(operator, config, progress)]


def _operator_rows(operator: Operator, config: Config, progress: Callable[[str], None]) -> list[Row]:
    operands = operator.operands(config.seed)
    formats = FORMATS if operands[0].ndim == 4 else FORMATS[1:]
    blocks = {_label(STOCK, name): _stock(operator, _laid_out(operands, name)) for name in formats}
    blocks |= {_label(*variant): _perturbed(operator, operands, *variant, config.seed) for variant in VARIANTS}
    counts = {name: calls_within(partial(block, 1), config.seconds) for name, block in blocks.items()}
    calls: dict[str, Call] = {name: partial(block, counts[name]) for name, block in blocks.items()}
    found = interleave(
        {name: calls[name] for name in calls if name.startswith(STOCK)},
        [{_label(*variant): calls[_label(*variant)]} for variant in VARIANTS],
        config.repetitions,
        lambda message: progress(f"{operator.name}, {message}"),
    )
    each = {name: times.over(counts[name]) for name, times in found.items()}
    stock = {name: each[_label(STOCK, name)] for name in formats}
    fastest = min(stock, key=lambda name: stock[name].median)
    row: Row = {"part": OPERATORS, "subject": operator.name, "threads": 1, "samples": 1}
    rows = [timed({**row, "what": STOCK, "format": name}, stock[name]) for name in formats]
    for route, mode in VARIANTS:
        about = {**row, "what": PERTURBED, "route": route, "mode": mode, "format": "contiguous"}
        times = each[_label(route, mode)]
        rows.append(timed(about, times) | ratios(times, stock, fastest))
    return rows


def _label(first: str, second: str) -> str:
    return f"{first} {second}"


def _laid_out(operands: list[Tensor], name: str) -> list[Tensor]:
    return [t.contiguous(memory_format=MEMORY_FORMATS[name]) if t.ndim == 4 else t for t in operands]


def _stock(operator: Operator, operands: list[Tensor]) -> Callable[[int], Any]:
    def block(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                operator.call(*operands)

    return block


def _perturbed(operator: Operator, operands: list[Tensor], route: str, mode: str, seed: int) -> Callable[[int], Any]:
    def block(count: int) -> None:
        with torch.inference_mode(), perturb(mode=mode, seed=seed, route=route):
            for _ in range(count):
                operator.call(*operands)

    return block
