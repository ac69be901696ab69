"""Layers as wide as real ones, every block of the kernel and full batches, against torch's operations in float64."""

from dataclasses import replace

import pytest
import torch

from tests.nanops.convolutions import INSTRUCTIONS, TRANSPOSE, Case, needs_kernels, normal_numbers, on, with_nan
from tests.reference import convolution_twin as twin

NAN = float("nan")
# Image, weight, and what differs from a plain layer. Outputs: 1 to 7 vectors; inputs: whole vectors and rests.
LAYERS = {
    "one vector": ((1, 16, 23, 21), (16, 16, 3, 3), {"padding": (1, 1)}),
    "two vectors": ((2, 17, 15, 15), (30, 17, 3, 3), {}),
    "three vectors": ((1, 35, 12, 12), (48, 35, 3, 3), {"padding": (1, 1)}),
    "four vectors": ((1, 64, 10, 10), (64, 64, 3, 3), {"padding": (1, 1)}),
    "five vectors": ((1, 20, 11, 13), (65, 20, 3, 3), {"padding": (1, 1)}),
    "six vectors": ((1, 20, 11, 13), (96, 20, 3, 3), {"padding": (2, 2), "dilation": (2, 2)}),
    "seven vectors": ((1, 24, 11, 13), (100, 24, 1, 1), {}),
    "many inputs": ((1, 1500, 5, 5), (64, 1500, 1, 3), {"padding": (0, 1)}),
    "many rows": ((1, 300, 7, 7), (64, 300, 5, 5), {"padding": (2, 2)}),
    "strided": ((2, 16, 21, 20), (32, 16, 3, 3), {"stride": (2, 3), "padding": (1, 1)}),
    "groups": ((1, 64, 12, 12), (40, 32, 3, 3), {"groups": 2, "padding": (1, 1)}),
    "depthwise": ((1, 40, 14, 14), (40, 1, 3, 3), {"groups": 40, "padding": (1, 1)}),
    "depthwise, two each": ((1, 20, 14, 14), (40, 1, 5, 5), {"groups": 20, "padding": (2, 2), "dilation": (1, 2)}),
    "volume": ((1, 16, 8, 9, 10), (18, 16, 3, 3, 3), {"padding": (1, 1, 1)}),
    "signal": ((2, 16, 300), (16, 16, 7), {"padding": (3,)}),
    "transposed": ((1, 32, 9, 9), (32, 20, 3, 3), {"stride": (2, 2), "padding": (1, 1), "output_padding": (1, 1)}),
}


def wide(name, pattern, rate):
    shape, weight, options = LAYERS[name]
    ones = (1,) * (len(shape) - 2)
    settings = {"stride": ones, "padding": tuple(0 for _ in ones), "dilation": ones} | options
    x, b = with_nan(normal_numbers(*shape) + 1, pattern, rate=rate), normal_numbers(outputs(weight, options), seed=2)
    return Case(x, normal_numbers(*weight, seed=1), b, **settings)


def outputs(weight, options):
    return weight[1] if "output_padding" in options else weight[0]


@needs_kernels
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("fill", ["mean", "max_normal"])
def test_wide_layers_are_those_of_torchs_operations(name, fill):
    patterns = ("iid", 0.3, True), ("pixels", 0.5, False), ("cluster", 0.5, True), ("unpool", 0.9, True)
    for pattern, rate, counted in patterns:
        case = replace(wide(name, pattern, rate), fill=fill, count_padding=counted, threshold=0.45)
        expected, gone = case.to(torch.float64).run()
        bound, _ = replace(
            case.to(torch.float64), x=case.x.double().abs(), weight=case.weight.double().abs(), bias=None
        ).run()
        for route in INSTRUCTIONS:
            with on(route):
                y, skipped = case.run()
            assert torch.equal(skipped, gone) and torch.equal(y.isnan(), expected.isnan())
            room = (2 * case.products() + 4) * 2.0**-23 * (bound + 1)
            assert not ((y.double() - expected).abs() > room).any()


@pytest.mark.parametrize("route", [*INSTRUCTIONS, "torch"])
def test_every_small_transposed_convolution(route):
    """Every size, kernel, stride, padding and dilation of one axis: windows beyond the image, outputs unreached."""
    tried = 0
    with on(route):
        for size, kernel, stride, padding, dilation, more in torch.cartesian_prod(
            *map(torch.arange, (4, 3, 4, 5, 3, 2))
        ).tolist():
            n, k, s, d = size + 1, kernel + 1, stride + 1, dilation + 1
            if (n - 1) * s - 2 * padding + d * (k - 1) + more + 1 < 1 or more >= max(s, d):
                continue
            x = torch.arange(1.0, n + 1).view(1, 1, n)
            x[0, 0, tried % n] = NAN
            w, b = torch.arange(1.0, k + 1).view(1, 1, k), torch.tensor([0.5])
            tried += 1
            counted = bool(tried % 3)
            y, skipped = TRANSPOSE[1](x, w, b, s, padding, more, 1, d, count_padding=counted, return_skipped=True)
            steps = (s,), (padding,), (more,), (d,)
            expected, gone = twin.nan_conv_transpose(
                x.double().numpy(), w.double().numpy(), b.double().numpy(), *steps, 1, 0.5, "mean", counted
            )
            assert torch.equal(skipped, torch.from_numpy(gone)), (n, k, s, padding, d, more)
            assert torch.allclose(y.double(), torch.from_numpy(expected), rtol=1e-5, equal_nan=True)
    assert tried > 500
