"""Layers of every class of element, and the same moments by torch, to hold the compiled sweeps against."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from mcaprobe import kernels
from mcaprobe.statistics import Moments

BUILT = [name for name in kernels.names() if kernels.load(name) is not None]
TENSORS = ("offset", "m2", "minimum", "maximum", "reference", "zeros", "nans", "infs")


@contextmanager
def using(name: str | None) -> Iterator[None]:
    """With the library of an instruction set, or with none."""
    library = None if name is None else kernels.load(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: library)
        yield


def by_torch(reference: torch.Tensor, blocks: list[list[torch.Tensor]]) -> Moments:
    with using(None):
        parts = []
        for block in blocks:
            parts.append(Moments.empty(reference))
            for sample in block:
                parts[-1].update(sample)
        for part in parts[1:]:
            parts[0].merge(part)
        return parts[0]


def same_bytes(a: torch.Tensor | np.ndarray, b: torch.Tensor | np.ndarray) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def expect_same(a: Moments, b: Moments) -> None:
    assert a.n == b.n and a.state().keys() == b.state().keys()
    for name in TENSORS:
        assert same_bytes(getattr(a, name), getattr(b, name)), name


def cut(samples: torch.Tensor, size: int) -> list[list[torch.Tensor]]:
    return [list(block) for block in samples.split(size)]


def layer(shape: tuple[int, ...], n: int = 10, seed: int = 0, broken: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Reference and samples with every class: noise of 1e-7 to 10, ties, zeros, tiny and huge and broken elements."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(shape, generator=generator)
    spread = 10 ** (torch.rand(shape, generator=generator) * 8 - 7)
    samples = reference * (1 + spread * torch.randn((n, *shape), generator=generator))
    kind = torch.randint(0, 24, shape, generator=generator)
    for k, factor in ((8, 1e-44), (9, 1e37), (10, 2.0**-126)):
        reference[kind == k] *= factor
        samples[:, kind == k] *= factor
    reference[(kind == 1) | (kind == 2)] = 0
    samples[:, kind == 1] = 0
    samples[::2, kind == 11] = -0.0
    samples[:, kind == 3] = reference[kind == 3]
    samples[:, kind == 4] = reference[kind == 4] * 1.5
    samples[:, kind == 12] = reference[kind == 12]
    samples[0, kind == 12] = torch.nextafter(reference[kind == 12], torch.tensor(math.inf))
    # Powers of two, whose scores lie on the edges of bins.
    reference[kind == 13] = 4.0
    samples[:, kind == 13] = 4.0
    samples[::2, kind == 13] = 4.0 + 2.0**-4
    if broken:
        samples[1, kind == 5] = math.nan
        samples[-1, kind == 6] = math.inf
        samples[:, kind == 7] = -math.inf
        samples[0, kind == 14], samples[1, kind == 14] = math.nan, math.inf
        reference[kind == 15], reference[kind == 16] = math.nan, math.inf
    return reference, samples if broken else samples.clamp(-3e38, 3e38)


def masks(*spatial: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    brain, more = (torch.rand(spatial, generator=generator) < share for share in (0.4, 0.2))
    return {"brain": brain, "background": ~brain, "more": brain | more}
