"""How far is the IEEE reference of the route exact from the stock run?

Its kernels add in the stock kernels' order as far as that is known, and round to nearest; the rest is the difference of
two correct programs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mcaprobe.emulator import lockstep
from mcaprobe.routes import EXACT
from mcaprobe.settings import Settings


def difference_from_stock(settings: Settings, model: nn.Module, x: Tensor) -> dict[str, float] | None:
    """Return the largest and the root-mean-square difference of the outputs, over the largest output of the stock run.

    None on the route model, whose reference is the stock run, and for a model that puts out no floating tensor.
    """
    if settings.taken_route() != EXACT:
        return None
    stock = _outputs(settings, model, x)
    with lockstep([], reference=True, mode=settings.mode, seed=settings.seed, route=settings.route):
        compiled = _outputs(settings, model, x)
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(stock, compiled, strict=True)]
    if not pairs:
        return None
    a, b = (torch.cat(part) for part in zip(*pairs, strict=True))
    known = a.isfinite() & b.isfinite()
    apart, size = (a - b)[known].abs(), a[known].abs()
    if not size.numel() or not size.max():
        return None
    scale = float(size.max())
    return {"largest": float(apart.max()) / scale, "rms": float(apart.square().mean().sqrt()) / scale}


def _outputs(settings: Settings, model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        leaves: list[Any] = tree_leaves(model(x))
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
