"""What does a campaign cost, recording and statistics included, against stock forwards of the network?"""

import copy
import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mcaprobe
from analyses.benchmarks.config import Config
from analyses.benchmarks.operators import MEMORY_FORMATS
from analyses.benchmarks.rows import CAMPAIGN, FORMATS, ONE_LAYER, PASS, STOCK, VARIANTS, WHOLE, Row, ratios, timed
from analyses.benchmarks.timing import Call, interleave, threads
from mcaprobe.campaign import Campaign
from mcaprobe.loading import Input, load_input
from mcaprobe.models import Model, load_model
from mcaprobe.observer import Observer
from mcaprobe.planning import Survey, look
from mcaprobe.products import Products
from mcaprobe.settings import Settings
from mcaprobe.units import run_unit


def run(config: Config, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return the rows of stock torch and of each route and mode, for each number of threads.

    `campaign`: the samples and the IEEE run, every layer recorded, from the model's start to the scores of the last
    layer. `campaign, one layer`: the same with the output layer alone recorded. `whole run`: what `mcaprobe.run` takes,
    reading the image and surveying the model included. Seconds of stock are those of as many forwards as samples.
    """
    model = load_model(config.network)
    x = load_input(config.x, model.module, {})
    rows = []
    for count in config.threads:
        with threads(count):
            rows += _rows(config, model, x, count, progress)
    return rows


def _rows(config: Config, model: Model, x: Input, count: int, progress: Callable[[str], None]) -> list[Row]:
    survey = look(model.module, x.tensor, ["*"])
    last = look(model.module, x.tensor, [glob.escape(survey.output)])
    recorded = {PASS: survey, ONE_LAYER: last, WHOLE: survey}
    stock = {name: forwards(model.module, x.tensor, config.samples, name) for name in FORMATS}
    groups = []
    for route, mode in VARIANTS:
        base = {"samples": config.samples, "seed": config.seed, "route": route, "mode": mode, "threads": count}
        groups.append(
            {
                f"{PASS} {route} {mode}": _unit(base, model, x, survey, "*"),
                f"{ONE_LAYER} {route} {mode}": _unit(base, model, x, last, glob.escape(survey.output)),
                f"{WHOLE} {route} {mode}": _whole(base, model.module, config.x),
            }
        )
    for call in (*stock.values(), groups[0][f"{PASS} exact random"]):
        progress(f"campaign, {count} threads, warming up")
        call()
    found = interleave(stock, groups, config.repetitions, lambda m: progress(f"campaign, {count} threads, {m}"))
    formats = {name: found[name] for name in FORMATS}
    row: Row = {"part": CAMPAIGN, "subject": config.subject, "threads": count, "samples": config.samples}
    rows = [timed({**row, "what": STOCK, "format": name}, formats[name]) for name in FORMATS]
    for route, mode in VARIANTS:
        for what, seen in recorded.items():
            times = found[f"{what} {route} {mode}"]
            about = {**row, "what": what, "route": route, "mode": mode, "layers": len(seen.layers)}
            rows.append(timed(about, times) | ratios(times, formats, "channels_last"))
    return rows


def forwards(module: nn.Module, x: Tensor, count: int, name: str) -> Call:
    """Return a call that runs `count` stock forwards of a copy of the network in a memory format."""
    laid_out = MEMORY_FORMATS[name]
    network = copy.deepcopy(module).to(memory_format=laid_out)  # type: ignore[call-overload]
    tensor = x.contiguous(memory_format=laid_out) if x.ndim == 4 else x

    def call() -> None:
        with torch.inference_mode():
            for _ in range(count):
                network(tensor)

    return call


def _unit(base: dict[str, Any], model: Model, x: Input, survey: Survey, layers: str) -> Call:
    settings = Settings(**base, layers=(layers,), keep_moments=())
    campaign = Campaign(settings, model, x, [])

    def call() -> None:
        products = Products(campaign, survey, None)
        run_unit(settings, model.module, x.tensor, settings.blocks(), [], products, Observer())

    return call


def _whole(base: dict[str, Any], module: nn.Module, x: str | Path) -> Call:
    return lambda: mcaprobe.run(module, x, **base, layers="*", keep_moments=())
