"""The place of every tensor on the input grid, against images of coordinates that go through the same operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mcaprobe.geometry import GridTracking, layer_info
from mcaprobe.grids import UNKNOWN, Axis, Tag
from tests.reference.coordinates import measured_coordinates

SHAPES: dict[int, tuple[int, ...]] = {1: (96,), 2: (96, 120), 3: (36, 44, 40)}


def mean_kernel(*size: int) -> Tensor:
    return torch.full((1, 1, *size), 1 / torch.tensor(size).prod().item(), dtype=torch.float64)


def triangle(*, dims: int) -> Tensor:
    """Weights of a transposed convolution of stride 2 that interpolates linearly: 1/4, 3/4, 3/4, 1/4."""
    line = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel[None, None]


def cat_of_branches(x: Tensor) -> Tensor:
    skip = F.avg_pool2d(x, 2)
    deep = F.interpolate(F.avg_pool2d(skip, 2), scale_factor=2, mode="bilinear")
    return torch.cat([deep, skip], 1) + torch.maximum(skip, skip) - skip


class Case(NamedTuple):
    name: str
    dims: int
    run: Callable[[Tensor], Tensor]
    period: int = 1  # the mean over so many outputs lies on the line (nearest neighbours make a staircase)


one, half = torch.ones(1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
CASES = [
    Case("conv 3x3 same", 2, lambda x: F.conv2d(x, mean_kernel(3, 3), padding=1)),
    Case("conv stride (2, 3)", 2, lambda x: F.conv2d(x, mean_kernel(3, 5), stride=(2, 3), padding=(1, 0))),
    Case("conv even kernel", 2, lambda x: F.conv2d(x, mean_kernel(4, 2), stride=2)),
    Case("conv even kernel, padding same", 2, lambda x: F.conv2d(F.pad(x, (0, 1, 1, 2)), mean_kernel(4, 2))),
    Case("conv dilated", 2, lambda x: F.conv2d(x, mean_kernel(3, 4), dilation=(4, 3), padding=(4, 2), stride=2)),
    Case("conv 1-D", 1, lambda x: F.conv1d(x, mean_kernel(5), stride=3, padding=2)),
    Case("conv 3-D", 3, lambda x: F.conv3d(x, mean_kernel(3, 2, 3), stride=(1, 2, 2), padding=(1, 0, 1))),
    Case("avg_pool2d", 2, lambda x: F.avg_pool2d(x, (3, 2), stride=(2, 2), padding=(1, 0))),
    Case("avg_pool1d", 1, lambda x: F.avg_pool1d(x, 3, 2)),
    Case("avg_pool3d", 3, lambda x: F.avg_pool3d(x, 2)),
    Case("max_pool2d", 2, lambda x: F.max_pool2d(x, 2)),
    Case("max_pool2d 3/2/1", 2, lambda x: F.max_pool2d(x, 3, 2, 1)),
    Case(
        "max_pool2d dilated, ceil",
        2,
        lambda x: F.max_pool2d(x, (3, 2), (5, 7), 1, dilation=2, ceil_mode=True),
    ),
    Case("max_pool1d", 1, lambda x: F.max_pool1d(x, 3, 2)),
    Case("max_pool3d", 3, lambda x: F.max_pool3d(x, (2, 3, 2))),
    Case("adaptive average", 2, lambda x: F.adaptive_avg_pool2d(x, (24, 30))),
    Case("adaptive maximum", 2, lambda x: F.adaptive_max_pool2d(x, (32, 24))),
    Case("adaptive 1-D", 1, lambda x: F.adaptive_avg_pool1d(x, 32)),
    Case("pad and crop", 2, lambda x: F.pad(x, (3, 1, 2, 5))[:, :, 1:-1, 2:]),
    Case("pad negative", 2, lambda x: F.pad(x, (-3, 1, 2, -5))),
    Case("pad reflect", 2, lambda x: F.pad(x, (3, 1, 2, 5), mode="reflect")),
    Case("pad replicate 3-D", 3, lambda x: F.pad(x, (3, 1, 2, 5, 1, 0), mode="replicate")),
    Case("slice from the end", 2, lambda x: x[:, :, -90:-2, 5:500:3]),
    Case(
        "transposed, linear weights",
        2,
        lambda x: F.conv_transpose2d(x, triangle(dims=2), stride=2, padding=1),
    ),
    Case("transposed 1-D", 1, lambda x: F.conv_transpose1d(x, triangle(dims=1), stride=2, padding=1)),
    Case("transposed 3-D", 3, lambda x: F.conv_transpose3d(x, triangle(dims=3), stride=2, padding=1)),
    Case(
        "transposed, output_padding",
        2,
        lambda x: F.conv_transpose2d(x, triangle(dims=2), stride=2, padding=2, output_padding=1),
    ),
    Case(
        "transposed 2/2 repeats",
        2,
        lambda x: F.conv_transpose2d(x, torch.ones(1, 1, 2, 2).double(), stride=2),
        2,
    ),
    Case("bilinear x2", 2, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    Case("bilinear to a size", 2, lambda x: F.interpolate(x, size=(64, 170), mode="bilinear")),
    Case(
        "bilinear, corners",
        2,
        lambda x: F.interpolate(x, size=(64, 170), mode="bilinear", align_corners=True),
    ),
    Case("bilinear, odd factor", 2, lambda x: F.interpolate(x, scale_factor=1.37, mode="bilinear")),
    Case(
        "bilinear, factor recomputed",
        2,
        lambda x: F.interpolate(x, scale_factor=1.37, mode="bilinear", recompute_scale_factor=True),
    ),
    Case(
        "bilinear, antialiased",
        2,
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
    ),
    Case("bicubic", 2, lambda x: F.interpolate(x, size=(64, 240), mode="bicubic"), 2),
    Case("linear", 1, lambda x: F.interpolate(x, scale_factor=3, mode="linear", align_corners=True)),
    Case("trilinear", 3, lambda x: F.interpolate(x, scale_factor=(2, 1, 2), mode="trilinear")),
    Case("nearest x2", 2, lambda x: F.interpolate(x, scale_factor=2), 2),
    Case("nearest x3, 1-D", 1, lambda x: F.interpolate(x, scale_factor=3), 3),
    Case("nearest / 2", 2, lambda x: F.interpolate(x, scale_factor=0.5)),
    Case("nearest 2/3", 2, lambda x: F.interpolate(x, size=(64, 80)), 2),
    Case("nearest 3-D", 3, lambda x: F.interpolate(x, scale_factor=2), 2),
    Case("nearest-exact x2", 2, lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), 2),
    Case("nearest-exact / 2", 2, lambda x: F.interpolate(x, scale_factor=0.5, mode="nearest-exact")),
    Case("nearest-exact 2/3", 2, lambda x: F.interpolate(x, size=(64, 80), mode="nearest-exact"), 2),
    Case("area", 2, lambda x: F.interpolate(x, scale_factor=0.25, mode="area")),
    Case("pixel_shuffle", 2, lambda x: F.pixel_shuffle(x.expand(1, 4, -1, -1) * 1, 2), 2),
    Case("pixel_unshuffle", 2, lambda x: F.pixel_unshuffle(x, 2).mean(1, keepdim=True)),
    Case("flip", 2, lambda x: F.avg_pool2d(x.flip(2), 2)),
    Case("split", 2, lambda x: x.split([10, 86], 2)[1].chunk(2, 3)[1]),
    Case("cat of branches", 2, cat_of_branches),
    Case("cat along an axis", 2, lambda x: torch.cat([x[:, :, :7], x[:, :, 7:]], 2)),
    Case(
        "permuted and back",
        2,
        lambda x: F.linear(x.permute(0, 2, 3, 1), one[None], one * 0).permute(0, 3, 1, 2),
    ),
    Case("flattened and back", 2, lambda x: (x.flatten(2) * 1).view(1, 1, 96, 120)),
    Case("batch norm", 2, lambda x: F.batch_norm(x, one * 0, one, eps=0.0)),
    Case("elementwise", 2, lambda x: torch.where(x > 1e9, x, F.prelu(x, one) * one.view(1, 1, 1, 1) + x) / 2),
    Case("in place", 2, lambda x: x.clone().mul_(half).add_(x * half)),
    Case("stack and mean", 2, lambda x: torch.stack([x, x], 2).mean(2)),
    Case("einsum over channels", 2, lambda x: torch.einsum("nchw,cd->ndhw", x, one[None])),
    Case(
        "encoder",
        2,
        lambda x: F.max_pool2d(F.conv2d(F.avg_pool2d(x, 2), mean_kernel(5, 5), stride=2), 3, 2, 1),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_grid_is_where_a_coordinate_image_says(case: Case) -> None:
    shape = SHAPES[case.dims]
    x = torch.rand(1, 1, *shape, dtype=torch.float64)
    with torch.no_grad(), GridTracking(x) as tracking:
        y = case.run(x)
        info = layer_info("y", "op", y, tracking.tag_of(y), case.dims)
    assert info.spatial and info.grid is not None and len(info.grid) == case.dims
    for axis in range(case.dims):
        seen = measured_coordinates(case.run, shape, axis)
        scale, offset = info.grid[axis]
        wrong = seen - (offset + scale * torch.arange(len(seen), dtype=torch.float64))
        inner = wrong[len(wrong) // 4 : 3 * len(wrong) // 4]
        inner = inner[: len(inner) // case.period * case.period].view(-1, case.period)
        assert len(inner) > 2
        assert inner.mean(1).abs().max() < 1e-6, (case.name, axis, info.grid, inner[:3])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("ceil", [False, True])
def test_unpooling_restores_the_grid_before_the_pooling(dims: int, ceil: bool) -> None:
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[dims - 1]
    x = torch.zeros(1, 1, *[23, 18, 13][:dims]) + 1
    for axis in range(dims):
        x += torch.arange(x.shape[2 + axis]).view(-1, *[1] * (dims - 1 - axis)) * 100**axis
    with torch.no_grad(), GridTracking(x) as tracking:
        before = F.pad(x, (2, 1) * dims)[:, :, 1:]
        values, indices = pool(before, 2, return_indices=True, ceil_mode=ceil)
        y = unpool(values * 1, indices.clone(), 2, output_size=before.shape)
        info = layer_info("y", "op", y, tracking.tag_of(y), dims)
        index_info = layer_info("indices", "op", indices, tracking.tag_of(indices), dims)
    assert info.grid == ((1.0, -1.0),) + ((1.0, -2.0),) * (dims - 1)
    assert index_info.grid == tuple((2.0, offset + 0.5) for _, offset in info.grid)
    for place in y[0, 0].nonzero():  # what came back lies at the coordinates that its value spells
        index = [int(offset + scale * p) for (scale, offset), p in zip(info.grid, place, strict=True)]
        assert y[0, 0][tuple(place)] == 1 + sum(i * 100**axis for axis, i in enumerate(index))


def test_unpooling_with_foreign_indices_takes_the_window_centre() -> None:
    x = torch.rand(1, 1, 8, 8)
    _, indices = F.max_pool2d(torch.rand(1, 1, 16, 16), 2, return_indices=True)
    with torch.no_grad(), GridTracking(x) as tracking:
        y = F.max_unpool2d(x, indices, 2)
        tag = tracking.tag_of(y)
    assert tag == Tag((None, None, Axis(0, 0.5, -0.25), Axis(1, 0.5, -0.25)))


def info_of(run: Callable[[Tensor], Tensor], x: Tensor):  # type: ignore[no-untyped-def]
    with torch.no_grad(), GridTracking(x) as tracking:
        y = run(x)
        return layer_info("y", "op", y, tracking.tag_of(y), x.ndim - 2)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.transpose(2, 3),
        lambda x: x.flatten(1),
        lambda x: F.linear(x.flatten(1), torch.ones(7, 3 * 16 * 12)),
        lambda x: F.linear(x, torch.ones(9, 12)),
        lambda x: x.mean((2, 3)),
        lambda x: x.sum(),
        lambda x: x[0],
        lambda x: torch.ones(1, 3, 16, 12) * 2,
    ],
    ids=[
        "permuted",
        "transposed",
        "flattened",
        "linear",
        "columns mixed",
        "mean",
        "scalar",
        "no batch",
        "constant",
    ],
)
def test_a_tensor_without_the_image_axes_has_no_map(run: Callable[[Tensor], Tensor]) -> None:
    info = info_of(run, torch.rand(1, 3, 16, 12))
    assert info.grid is None and not info.spatial and not info.assumed
    with pytest.raises(ValueError, match="no map"):
        info.placed((16, 12))


@pytest.mark.parametrize(
    "run",
    [
        lambda x: torch.fft.fft2(x).real,
        lambda x: x.roll(2, 2),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
        lambda x: F.grid_sample(x, torch.zeros(1, 8, 6, 2), align_corners=False),
        lambda x: x.view(1, 3, 2, 8, 12).transpose(2, 3).reshape(1, 3, 16, 12),
        lambda x: x[:, :, torch.arange(8)],
        lambda x: torch.cat([x, x], 2),
        lambda x: x.repeat(1, 1, 2, 2),
        lambda x: x.mean((2, 3), keepdim=True).expand(1, 3, 16, 12),
        lambda x: x.sort(2).values,
    ],
    ids=["fft", "roll", "circular", "sample", "windows", "index", "cat", "repeat", "expand", "sort"],
)
def test_an_operator_without_a_rule_keeps_the_field_of_view_and_says_so(
    run: Callable[[Tensor], Tensor],
) -> None:
    info = info_of(run, torch.rand(1, 3, 16, 12))
    assert info.spatial and info.grid is None and info.assumed
    for (scale, offset), before, after in zip(info.placed((16, 12)), (16, 12), info.shape[2:], strict=True):
        assert offset - scale / 2 == pytest.approx(-0.5)
        assert offset + scale * (after - 0.5) == pytest.approx(before - 0.5)


def test_a_global_pooling_is_one_voxel_over_the_image() -> None:
    for run in (lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: x.mean((2, 3), keepdim=True)):
        assert info_of(run, torch.rand(1, 3, 16, 12)).grid == ((16.0, 7.5), (12.0, 5.5))


def test_squeeze_and_excitation_keeps_the_grid_of_the_larger_branch() -> None:
    def excited(x: Tensor) -> Tensor:
        gate = F.linear(x.mean((2, 3)), torch.ones(3, 3))
        return gate.sigmoid().view(1, 3, 1, 1) * F.avg_pool2d(x, 2)

    assert info_of(excited, torch.rand(1, 3, 16, 12)).grid == ((2.0, 0.5), (2.0, 0.5))


def test_the_grid_is_followed_into_inference_mode_and_buffers() -> None:
    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            y = F.max_pool2d(F.conv2d(x, torch.ones(1, 3, 3, 3), padding="same"), 2)
        buffer = torch.zeros(1, 1, 12, 12)
        buffer[:, :, 2:-2, 3:-3] = y
        return buffer

    info = info_of(run, torch.rand(1, 3, 16, 12))
    assert info.assumed  # the buffer is of the image, but nobody followed where it was written


def test_the_input_tag_is_the_identity() -> None:
    x = torch.rand(2, 3, 4, 5, 6)
    with GridTracking(x) as tracking:
        assert tracking.tag_of(x) == Tag((None, None, Axis(0), Axis(1), Axis(2)))
        assert tracking.tag_of(torch.fft.fftn(x).real) == Tag((UNKNOWN,) * 5)
