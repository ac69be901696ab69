"""How fast are the NaN poolings beside torch's own, both timed by turns in the same run?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from analyses.benchmarks.nan_cases import Case, with_nan
from analyses.benchmarks.nan_conv import LAST
from analyses.benchmarks.speed_up import Row, Setting, by_turns, compared
from analyses.benchmarks.timing import threads
from nanops import functional

POOL = {2: torch.nn.functional.max_pool2d, 3: torch.nn.functional.max_pool3d}
UNPOOL = {2: torch.nn.functional.max_unpool2d, 3: torch.nn.functional.max_unpool3d}
IMAGES = (
    Case("64 x 256x256", 1, 64, 64, (256, 256), 2),
    Case("24 x 256x256", 1, 24, 24, (256, 256), 2),
    Case("4 x 64 x 64x64", 4, 64, 64, (64, 64), 2),
    Case("32 x 48x48x48", 1, 32, 32, (48, 48, 48), 2),
)
PATTERNS = ("no ties", "ties in 70 %", "clustered 40 %")
PAIR, AGGRESSIVE = "conservative pool + unpool", "aggressive pool"
LEAST = {PAIR: 1.0, AGGRESSIVE: 1 / 1.3}


def run(setting: Setting, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return a row for each operator, image, memory format, pattern and thread count."""
    rows: list[Row] = []
    for count in setting.threads:
        with threads(count), torch.inference_mode():
            for case in IMAGES:
                for name in ("channels_last", "contiguous"):
                    rows += [{"threads": count} | row for row in _rows(case, name, setting, progress)]
    return rows


def image(case: Case, pattern: str, seed: int) -> Tensor:
    """Return activations: distinct ones, or where the lowest 70 % of the pixels (in blobs) are equal, or NaN."""
    x = case.operands(seed)[0]
    if pattern == "no ties":
        return x
    if pattern == "ties in 70 %":
        return with_nan(x, "clustered 70 %", seed).nan_to_num(0.0)
    return with_nan(x, pattern, seed)


def _rows(case: Case, name: str, setting: Setting, progress: Callable[[str], None]) -> list[Row]:
    form = LAST[case.dims] if name == "channels_last" else torch.contiguous_format
    images = {pattern: image(case, pattern, setting.seed).contiguous(memory_format=form) for pattern in PATTERNS}
    clean = images["no ties"]
    stock = {PAIR: partial(_torch_pair, clean), AGGRESSIVE: partial(POOL[case.dims], clean, 2, return_indices=True)}
    pool = getattr(functional, f"aggressive_max_pool{case.dims}d")
    ours: dict[str, Callable[[], Any]] = {}
    for pattern, x in images.items():
        ours[f"{PAIR}: {pattern}"] = partial(_our_pair, x)
        ours[f"{AGGRESSIVE}: {pattern}"] = partial(pool, x, 2)
    theirs, found = by_turns(stock, ours, setting, lambda text: progress(f"{case.name}, {name}, {text}"))
    return [
        {"part": what, "subject": f"{case.name}, {name}", "pattern": pattern, "route": "compiled"}
        | compared(found[f"{what}: {pattern}"], {name: theirs[what]}, LEAST[what])
        for what in (PAIR, AGGRESSIVE)
        for pattern in PATTERNS
    ]


def _torch_pair(x: Tensor) -> Tensor:
    values, indices = POOL[x.ndim - 2](x, 2, return_indices=True)
    unpooled: Tensor = UNPOOL[x.ndim - 2](values, indices, 2)  # type: ignore[operator,arg-type]
    return unpooled


def _our_pair(x: Tensor) -> Tensor:
    dims = x.ndim - 2
    values, ties = getattr(functional, f"multi_max_pool{dims}d")(x, 2)
    unpooled: Tensor = getattr(functional, f"conservative_max_unpool{dims}d")(values, ties, 2)
    return unpooled
