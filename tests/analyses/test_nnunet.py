"""Is the network nnU-Net's, in shapes and size, and does its pooling twin take NaNs?"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import nanops
from analyses.models.nnunet import FEATURES, PlainUNet
from mcaprobe.errors import InputError

SAURON = {2: (32, 64, 128, 256, 480), 3: (24, 48, 96, 192, 384)}


def small(dims: int = 2, downsampling: str = "pool", **options: object) -> PlainUNet:
    torch.manual_seed(0)
    options = {"features": (4, 6, 6), "channels": 2, "classes": 3} | options
    return PlainUNet(dims, downsampling=downsampling, **options).double().eval()  # type: ignore[arg-type]


def count(dims: int, channels: int, classes: int, features: Sequence[int], *, heads: int = 1, last: int | None = None,
          affine: int = 2, bias: int = 0) -> int:  # fmt: skip
    """Return the sum over all layers; `last`: positions of the deepest transposed kernel; `bias`: of it and heads."""
    unit = lambda i, o: 3**dims * i * o + o + affine * o  # noqa: E731
    total = sum(unit(i, o) + unit(o, o) for i, o in zip((channels, *features), features, strict=False))
    for deep, high in zip(features[1:], features, strict=False):
        total += 2**dims * deep * high + bias * high + unit(2 * high, high) + unit(high, high)
    if last is not None:
        total -= (2**dims - last) * features[-1] * features[-2]
    return total + sum(f * classes + bias * classes for f in features[:heads])


def parameters(network: PlainUNet) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("dims", "channels", "classes", "features"),
    [(3, 1, 26, FEATURES), (2, 1, 2, SAURON[2]), (3, 4, 3, (4, 7, 9))],
    ids=["six stages", "2D", "small"],
)
def test_the_number_of_parameters_is_the_sum_over_the_layers(
    dims: int, channels: int, classes: int, features: tuple[int, ...]
) -> None:
    assert parameters(PlainUNet(dims, channels, classes, features)) == count(dims, channels, classes, features)


# What papers count: the heads of deep supervision beside ours; in Sauron's nnU-Net biases and no affine norm as well.
PUBLISHED = {
    "VerSe": (count(3, 1, 26, FEATURES, heads=5), 31.214e6),
    "AMOS": (count(3, 1, 16, FEATURES, heads=5), 31.206e6),
    "AMOS, last (1, 2, 2)": (count(3, 1, 16, FEATURES, heads=5, last=4), 30.796e6),
    "BraTS": (count(3, 4, 4, FEATURES, heads=5), 31.199e6),
    "Rats": (count(2, 1, 2, SAURON[2], heads=3, affine=0, bias=1), 7_367_686),
    "ATLAS": (count(3, 1, 2, SAURON[3], heads=3, affine=0, bias=1), 12_699_750),
    "KiTS": (count(3, 1, 3, SAURON[3], heads=3, affine=0, bias=1), 12_699_921),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_same_sum_gives_the_published_numbers(name: str) -> None:
    found, published = PUBLISHED[name]
    assert found == published if isinstance(published, int) else abs(found - published) <= 500


def test_a_stride_may_differ_between_axes() -> None:
    strides = (1, 2, (1, 2, 2))
    network = small(3, "stride", strides=strides)
    assert parameters(network) == count(3, 2, 3, (4, 6, 6), last=4)
    for kind in ("stride", "pool"):
        x = torch.rand(1, 2, 6, 8, 12, dtype=torch.float64)
        assert small(3, kind, strides=strides)(x).shape == (1, 3, 6, 8, 12)


def test_the_twin_has_a_1x1_convolution_instead_of_a_transposed_one_where_channels_differ() -> None:
    assert parameters(small()) == parameters(small(2, "stride")) - 4 * (6 * 4 + 6 * 6) + 6 * 4


@pytest.mark.parametrize("kind", ["stride", "pool"])
@pytest.mark.parametrize(("dims", "size"), [(2, (12, 20)), (3, (8, 12, 4))])
def test_the_logits_have_the_size_of_the_image(kind: str, dims: int, size: tuple[int, ...]) -> None:
    sizes: list[tuple[int, ...]] = []
    network = small(dims, kind)
    for stage in network.encoder:
        stage.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[2:])))
    x = torch.rand(2, 2, *size, dtype=torch.float64)
    assert network(x).shape == (2, 3, *size)
    assert sizes == [tuple(n // 2**i for n in size) for i in range(3)]


def test_each_unpooling_has_the_indices_of_the_pooling_at_its_level() -> None:
    network = small()
    down: list[Tensor] = []
    up: list[Tensor] = []
    for pool, way in zip(network.down, network.up, strict=True):
        pool.register_forward_hook(lambda _, __, out: down.append(out[1]))
        way.unpool.register_forward_hook(lambda _, inputs, __: up.insert(0, inputs[1]))  # type: ignore[union-attr]
    network(torch.rand(1, 2, 16, 16, dtype=torch.float64))
    assert len(down) == 2
    assert all(torch.equal(a, b) for a, b in zip(down, up, strict=True))


@pytest.mark.parametrize("kind", ["stride", "pool"])
@pytest.mark.parametrize(("dims", "size"), [(2, (16, 24)), (3, (8, 8, 12))])
@torch.no_grad()
def test_without_ties_conservative_nans_change_nothing(kind: str, dims: int, size: tuple[int, ...]) -> None:
    network = small(dims, kind)
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(nanops.convert(network, "conservative")(x), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pooling", ["conservative", "aggressive"])
@torch.no_grad()
def test_a_constant_background_makes_nans_in_the_twin(pooling: str) -> None:
    network = nanops.convert(small(), pooling)
    layer = network.down[0] if pooling == "aggressive" else network.up[0].unpool
    rates: list[float] = []
    layer.register_forward_hook(
        lambda _, __, out: rates.append((out[0] if isinstance(out, tuple) else out).isnan().double().mean().item())
    )
    x = torch.zeros(1, 2, 32, 32, dtype=torch.float64)
    x[..., 8:20, 8:20] = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    found = network(x)
    assert 0.05 < rates[0] < 1
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 1, 16, 16), r"Expected x of shape \(N, 2, H, W\), got \(1, 1, 16, 16\)"),
        ((2, 16, 16), "Expected x of shape"),
        ((1, 2, 16, 18), r"Expected a size H, W of multiples of 4 x 4, got \(16, 18\)"),
    ],
    ids=["channels", "no batch", "size"],
)
def test_a_wrong_input_is_named(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dims": 1}, "Expected 2 or 3 dims, got 1"),
        ({"downsampling": "pooling"}, "Expected downsampling"),
        ({"strides": (2, 2, 2)}, "Expected 3 strides, the first of them 1"),
        ({"strides": (1, 2, (2, 2, 2))}, "one or 2 a stage"),
        ({"features": ()}, "Expected a stage"),
    ],
    ids=["dims", "downsampling", "first stride", "axes", "no stage"],
)
def test_a_wrong_option_is_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(**options)  # type: ignore[arg-type]
