"""Interpolation and average pooling: their taps, their noise, their exact results."""

from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mcaprobe import lockstep
from mcaprobe.lanes import lanes_of
from tests.reference import random_rounding_twin as twin

G = torch.Generator().manual_seed(0)
S, X, D = (torch.randn(s, generator=G, dtype=torch.float64) for s in ((2, 3, 11), (2, 3, 7, 9), (1, 2, 5, 6, 4)))
THETA = torch.eye(2, 3, dtype=torch.float64)[None].repeat(2, 1, 1) * 0.9
TWIN_SAMPLES = 1000


def samples(call, count=20, mode="random", **options):
    with torch.no_grad(), lockstep(range(count), reference=False, mode=mode, **options):
        lanes = lanes_of(call())
    return torch.stack(lanes)


POOLS = {
    "1d": lambda x: F.avg_pool1d(x(S), 3, 2, 1),
    "2d": lambda x: F.avg_pool2d(x(X), 2),
    "padded": lambda x: F.avg_pool2d(x(X), 3, 2, 1),
    "inside": lambda x: F.avg_pool2d(x(X), 3, 2, 1, count_include_pad=False),
    "ceil": lambda x: F.avg_pool2d(x(X), (2, 3), 2, ceil_mode=True),
    "ceil-padded": lambda x: F.avg_pool2d(x(X), 3, 2, 1, ceil_mode=True),
    "divisor": lambda x: F.avg_pool2d(x(X), 2, divisor_override=3),
    "ceil-inside": lambda x: F.avg_pool2d(x(X), 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "unbatched": lambda x: F.avg_pool2d(x(X[0]), 2),
    "unbatched-inside": lambda x: F.avg_pool2d(x(X[0]), 3, 2, 1, count_include_pad=False),
    "3d": lambda x: F.avg_pool3d(x(D), 2, padding=1),
    "3d-unbatched": lambda x: F.avg_pool3d(x(D[0]), (1, 3, 2), 2),
    "row": lambda x: F.avg_pool2d(x(X), (2, 1)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x(X), (3, 4)),
    "global": lambda x: F.adaptive_avg_pool3d(x(D), 1),
    "adaptive1d": lambda x: F.adaptive_avg_pool1d(x(S), 4),
    "lp": lambda x: F.lp_pool2d(x(X.abs()), 2, 2),
}
SAMPLERS = {
    "linear": lambda x: F.interpolate(x(S), scale_factor=2, mode="linear"),
    "linear-size": lambda x: F.interpolate(x(S), size=7, mode="linear"),
    "bilinear": lambda x: F.interpolate(x(X), scale_factor=2, mode="bilinear"),
    "shrink": lambda x: F.interpolate(x(X), scale_factor=0.6, mode="bilinear"),
    "corners": lambda x: F.interpolate(x(X), size=(10, 5), mode="bilinear", align_corners=True),
    "one": lambda x: F.interpolate(x(X), size=1, mode="bilinear", align_corners=True),
    "factors": lambda x: F.interpolate(x(X), scale_factor=(1.3, 0.7), mode="bilinear"),
    "recomputed": lambda x: F.interpolate(x(X), scale_factor=1.37, mode="bilinear", recompute_scale_factor=True),
    "trilinear": lambda x: F.interpolate(x(D), scale_factor=1.5, mode="trilinear"),
    "trilinear-size": lambda x: F.interpolate(x(D), size=(3, 9, 8), mode="trilinear", align_corners=True),
    "same": lambda x: F.interpolate(x(X), size=(7, 9), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x(X), size=(9, 5), mode="bicubic"),
    "antialias": lambda x: F.interpolate(x(X), size=(9, 5), mode="bicubic", align_corners=True),
    "grid": lambda x: F.grid_sample(
        x(X), F.affine_grid(x(THETA), (2, 3, 6, 6), align_corners=False), align_corners=False
    ),
}


@pytest.mark.parametrize("name", [*POOLS, *SAMPLERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_stay_near_the_true_value(name, dtype):
    call = {**POOLS, **SAMPLERS}[name]
    truth = call(lambda t: t.to(dtype).double())
    y = samples(lambda: call(lambda t: t.to(dtype)))
    stock_error = (call(lambda t: t.to(dtype)).double() - truth).abs().max().item()
    unit = 2.0 ** -(24 if dtype == torch.float32 else 53)
    assert y.dtype == dtype and y.shape[1:] == truth.shape
    assert (y.double() - truth).abs().max().item() < 4 * stock_error + 128 * unit
    if name not in ("same", "one"):
        assert (y != y[0]).float().mean() > 0.15


@pytest.mark.parametrize("mode", ["random", "nearness"])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (1, 2), (5, 4)])
def test_pooling_adds_its_window_and_divides(kernel, mode):
    x = torch.randn(1, 2, 20, 20, generator=G) + 0.5
    y = samples(lambda: F.avg_pool2d(x, kernel), 300, mode).double().numpy()
    taken = twin.windows(x.numpy(), kernel, kernel, (0, 0), (1, 1))
    flat = taken.reshape(*taken.shape[:4], -1)
    r = twin.Rounding(mode, 1)
    truth = r.round(twin.additions(r, flat, TWIN_SAMPLES) / float(np.prod(kernel)))
    assert 0.85 < sqrt(y.var(0).mean() / truth.var(0).mean()) < 1.18
    if mode == "nearness":
        z = (y.mean(0) - flat.mean(-1)) / np.maximum(y.std(0) / sqrt(300), 1e-12)
        assert np.sqrt(np.mean(z**2)) < 1.8


@pytest.mark.parametrize("mode", ["random", "nearness"])
def test_bilinear_interpolation_is_nested_products_and_multiply_adds(mode):
    """Doubling has the exact weights 1/4 and 3/4: what is left is the roundings of the taps."""
    x = torch.randn(1, 1, 6, 6, generator=G) + 0.5
    y = samples(lambda: F.interpolate(x, scale_factor=2, mode="bilinear"), 400, mode).double().numpy()[:, 0, 0]
    position = np.clip((np.arange(12) + 0.5) / 2 - 0.5, 0, None)
    low = position.astype(int)
    high, weight = np.minimum(low + 1, 5), position - low
    r, image = twin.Rounding(mode, 2), x[0, 0].double().numpy()

    def row(index):
        taken = np.broadcast_to(image[index], (TWIN_SAMPLES, 12, 6))
        return r.fma(taken[..., high], weight, r.round(taken[..., low] * (1 - weight)))

    truth = r.fma(row(high), weight[:, None], r.round(row(low) * (1 - weight[:, None])))
    assert 0.85 < sqrt(y.var(0).mean() / truth.var(0).mean()) < 1.18
    if mode == "nearness":
        z = (y.mean(0) - F.interpolate(x.double(), scale_factor=2, mode="bilinear")[0, 0].numpy()) / (
            y.std(0) / sqrt(400) + 1e-12
        )
        assert np.sqrt(np.mean(z[y.std(0) > 0] ** 2)) < 1.8


@pytest.mark.parametrize("mode", ["random", "nearness", "rr"])
def test_exact_results_stay_exact(mode):
    dyadic = torch.randint(0, 256, (1, 2, 8, 8), generator=G).float()
    background = torch.zeros(1, 1, 12, 12)
    background[..., 6:, 6:] = torch.randn(6, 6, generator=G)
    for call in (
        lambda: F.avg_pool2d(dyadic, 2),
        lambda: F.avg_pool2d(dyadic, 4, 2),
        lambda: F.interpolate(dyadic, scale_factor=2, mode="bilinear"),
        lambda: F.interpolate(dyadic, size=(8, 8), mode="bilinear"),
        lambda: F.avg_pool2d(torch.ones(1, 1, 9, 9), 3, 2, 1, count_include_pad=False),
        lambda: F.avg_pool2d(background, 3, 1)[..., :4, :4],
        lambda: F.interpolate(background, scale_factor=1.3, mode="bilinear")[..., :6, :6],
        lambda: F.adaptive_avg_pool2d(dyadic, 4),
    ):
        stock = call()
        assert torch.equal(samples(call, 3, mode), stock.expand(3, *stock.shape))
