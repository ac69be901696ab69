"""Each recorded layer of a model gets its name, its shape and its place on the input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcaprobe.errors import InputError
from mcaprobe.geometry import LayerInfo, survey


class Block(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm = nn.BatchNorm2d(outside)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.norm(self.conv(x)))
        out: Tensor = self.prelu(x + 1)
        return out


class UNet(nn.Module):
    """Two poolings with indices, unpoolings, skips by maximum and by cat, a crop, and a linear head beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Block(3, 6)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.second = Block(6, 6)
        self.unpool = nn.MaxUnpool2d(2)
        self.third = Block(12, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.first(x[:, :, 2:-2])
        pooled, indices = self.pool(a)
        b = self.second(pooled)
        deep, _deeper = F.max_pool2d(b, 3, 2, 1, return_indices=True)
        up = F.interpolate(deep, size=b.shape[2:], mode="bilinear", align_corners=False)
        c = self.unpool(torch.maximum(b, up), indices)
        d = self.third(torch.cat([c, a], 1))
        return d, self.head(F.adaptive_avg_pool2d(d, 1).flatten(1))


@pytest.fixture(scope="module")
def surveyed() -> dict[str, LayerInfo]:
    torch.manual_seed(0)
    return survey(UNet().eval(), torch.rand(1, 3, 36, 24))


def test_each_layer_has_its_place(surveyed: dict[str, LayerInfo]) -> None:
    fine, coarse = ((1.0, 2.0), (1.0, 0.0)), ((2.0, 2.5), (2.0, 0.5))
    expected = {
        "first.conv": fine, "first.prelu": fine, "first.prelu:2": fine, "pool": coarse, "pool.indices": coarse,
        "second.norm": coarse, ":max_pool2d": ((4.0, 2.5), (4.0, 0.5)), ":max_pool2d.indices": ((4.0, 2.5), (4.0, 0.5)),
        ":interpolate": ((2.0, 1.5), (2.0, -0.5)), ":maximum": coarse, "unpool": fine, ":cat": fine,
        "third.prelu:2": fine,
    }  # fmt: skip
    missing = sorted(set(expected) - set(surveyed))
    assert not missing, (missing, sorted(surveyed))
    for name, grid in expected.items():
        assert surveyed[name].grid == grid, name
        assert surveyed[name].spatial and not surveyed[name].assumed
    assert surveyed["pool.indices"].dtype == torch.int64
    assert surveyed["second.conv"].shape == (1, 6, 16, 12)
    assert surveyed["first.conv"].operator and surveyed["first.conv"].name == "first.conv"


def test_a_linear_head_has_no_map(surveyed: dict[str, LayerInfo]) -> None:
    assert surveyed["head"] == LayerInfo("head", surveyed["head"].operator, (1, 4), torch.float32, None, False)


def test_the_model_and_its_input_are_left_as_they_were() -> None:
    model, x = UNet(), torch.rand(2, 3, 36, 24)
    before = {name: value.clone() for name, value in model.eval().state_dict().items()}
    y, expected = x.clone(), model(x)[0]
    survey(model, x)
    assert torch.equal(x, y) and torch.equal(model(x)[0], expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "shape", "grid"),
    [
        (
            nn.Sequential(nn.Conv1d(2, 3, 4, stride=2, padding=1), nn.Upsample(scale_factor=2)),
            (1, 2, 30),
            ((1.0, 0.0),),
        ),
        (
            nn.Sequential(nn.ConvTranspose3d(2, 1, 2, stride=2), nn.ReLU()),
            (1, 2, 4, 5, 6),
            ((0.5, -0.25),) * 3,
        ),
    ],
    ids=["1-D", "3-D"],
)
def test_lines_and_volumes_have_places(
    model: nn.Module, shape: tuple[int, ...], grid: tuple[tuple[float, float], ...]
) -> None:
    assert survey(model, torch.rand(shape))["1"].grid == grid


def test_a_table_has_no_place() -> None:
    found = survey(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), torch.rand(3, 5))
    assert [info.spatial for info in found.values()] == [False] * 3 and list(found) == ["0", "1", ":output.labels"]


def test_globs_choose_layers_and_a_wrong_one_is_refused() -> None:
    model, x = UNet().eval(), torch.rand(1, 3, 36, 24)
    assert set(survey(model, x, ["first.c*", "head"])) == {"first.conv", "head"}
    with pytest.raises(InputError):
        survey(model, x, "fisrt.conv")


def test_an_inference_tensor_is_surveyed_too() -> None:
    with torch.inference_mode():
        x = torch.rand(1, 3, 36, 24)
        found = survey(UNet().eval(), x)
    assert found["unpool"].grid == ((1.0, 2.0), (1.0, 0.0))
