"""Are the plain ways to make a network small what they say? Pruning by magnitude, int8, bfloat16, half the width."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nanops
from analyses.compress.halves import bfloat16, half_width
from analyses.compress.int8 import quantized_int8, quantized_layers
from analyses.compress.magnitude import channel_axis, layers_of, magnitude_pruned, zero_channels
from analyses.models.nnunet import PlainUNet
from mcaprobe.errors import InputError

FEATURES = (4, 6, 8)
WAYS = ("pool", "stride")


def network(downsampling: str = "pool", dims: int = 3) -> PlainUNet:
    torch.manual_seed(0)
    return PlainUNet(dims, 1, 3, FEATURES, downsampling=downsampling).eval()


def volume(seed: int = 0, dims: int = 3) -> Tensor:
    return torch.randn((1, 1, *(8,) * dims), generator=torch.Generator().manual_seed(seed))


def rows(layer: nn.Conv3d | nn.ConvTranspose3d) -> list[list[float]]:
    """Weights of each output channel, by loops."""
    weight = layer.weight.detach()
    turned = isinstance(layer, nn.ConvTranspose3d)
    n = weight.shape[1] if turned else weight.shape[0]
    return [(weight[:, i] if turned else weight[i]).flatten().tolist() for i in range(n)]


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("downsampling", WAYS)
def test_the_weakest_channels_of_each_layer_are_zero_and_the_others_stay(downsampling: str, norm: int) -> None:
    model = network(downsampling)
    pruned = magnitude_pruned(model, 0.5, norm, keep=["classifier"])
    ours = layers_of(pruned)
    for path, layer in layers_of(model).items():
        before, after = rows(layer), rows(ours[path])  # type: ignore[arg-type]
        sizes = [sum(abs(w) ** norm for w in row) for row in before]
        count = 0 if path == "classifier" else round(0.5 * len(before))
        gone = sorted(range(len(sizes)), key=lambda i: sizes[i])[:count]
        assert [i for i, row in enumerate(after) if not any(row)] == sorted(gone), path
        assert all(after[i] == before[i] for i in range(len(before)) if i not in gone), path
        assert zero_channels(ours[path]) == count


def test_a_pruned_channel_puts_out_zero_and_the_pruning_is_permanent() -> None:
    conv = nn.Conv2d(2, 4, 3)
    pruned = magnitude_pruned(nn.Sequential(conv), 0.5)
    out = pruned(torch.randn(1, 2, 5, 5))
    assert int((out == 0).all((0, 2, 3)).sum()) == 2
    assert sorted(dict(pruned.named_parameters())) == ["0.bias", "0.weight"] and not list(pruned.buffers())
    assert zero_channels(conv) == 0, "the original stays"


def test_nothing_pruned_is_the_same_network() -> None:
    model = network()
    assert torch.equal(magnitude_pruned(model, 0.0)(volume()), model(volume()))


def tied() -> nn.Module:
    both = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    both[1].weight = both[0].weight
    return both


def infinite() -> nn.Module:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = torch.inf
    return model


PRUNING_REFUSALS: list[tuple[str, Callable[[], object], str]] = [
    ("share of 1", lambda: magnitude_pruned(network(), 1.0), "share in"),
    ("norm 3", lambda: magnitude_pruned(network(), 0.5, 3), "norm of 1 or 2"),
    ("glob", lambda: magnitude_pruned(network(), 0.5, keep=["clasifier"]), "'clasifier'.*'classifier'"),
    ("all channels", lambda: magnitude_pruned(network(), 0.95), "leaves 'encoder.0.0.conv' a channel"),
    ("tied", lambda: magnitude_pruned(tied(), 0.5), "'0' in 2 layers"),
    ("groups", lambda: magnitude_pruned(nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2)), 0.5), "'0', got 2"),
    ("infinite", lambda: magnitude_pruned(infinite(), 0.5), "finite weights in '1'"),
    ("no layer", lambda: magnitude_pruned(nn.ReLU(), 0.5), "ReLU without one"),
    ("converted", lambda: magnitude_pruned(nanops.convert(network(), "conservative", 0.5), 0.5), "nanops.restore"),
]


@pytest.mark.parametrize(("act", "says"), [case[1:] for case in PRUNING_REFUSALS], ids=[c[0] for c in PRUNING_REFUSALS])
def test_pruning_refuses_and_names_the_layer(act: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        act()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("downsampling", WAYS)
def test_every_layer_of_the_int8_network_has_integer_weights(downsampling: str, dims: int) -> None:
    model = network(downsampling, dims)
    quantized = quantized_int8(model, [volume(seed, dims) for seed in range(3)])
    found = quantized_layers(quantized)
    assert set(found) == set(layers_of(model)) and set(found.values()) == {torch.qint8}
    assert layers_of(model), "the original stays"
    with pytest.raises(InputError, match="without one"):
        layers_of(quantized)


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear])
def test_an_int8_layer_is_near_the_float_one_on_inputs_it_did_not_see(kind: type[nn.Module]) -> None:
    torch.manual_seed(1)
    dims = {"2d": 2, "3d": 3}.get(kind.__name__[-2:], 0)
    layer = kind(16, 8, *([2, 2] if "Transpose" in kind.__name__ else [3] if dims else []))
    shape = (4, 16, *(6,) * dims)
    x, new = torch.rand(shape), torch.rand(shape)
    expected, found = layer(new), quantized_int8(nn.Sequential(layer), [x])(new)
    assert not torch.equal(found, expected)
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


@torch.no_grad()
def test_the_calibration_decides_the_range() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    x = volume(3, 2)
    narrow, wide = (quantized_int8(model, [scale * x])(x) for scale in (0.01, 1.0))
    expected = model(x)
    assert float((narrow - expected).abs().max()) > 5 * float((wide - expected).abs().max())


def test_quantizing_leaves_the_backend_as_it_was() -> None:
    before = torch.backends.quantized.engine
    quantized_int8(network("stride"), [volume()])
    assert torch.backends.quantized.engine == before


class Unreached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


def reflecting() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))


INT8_REFUSALS: list[tuple[str, Callable[[], nn.Module], list[Tensor], str]] = [
    ("no batch", network, [], "got none"),
    ("NaN", network, [volume() * torch.nan], "batch 0"),
    ("NaN inside", lambda: nn.Sequential(Log(), nn.Conv2d(1, 1, 3)), [-volume(0, 2).abs()], "before '1'"),
    ("unreached", Unreached, [volume(0, 2)], "reaches 'unused'"),
    ("ConvTranspose1d", lambda: nn.Sequential(nn.ConvTranspose1d(1, 1, 2)), [volume(0, 1)], "ConvTranspose1d in '0'"),
    ("padding", reflecting, [volume(0, 2)], "'1', got 'reflect'"),
    ("double", lambda: nn.Sequential(nn.Conv2d(1, 1, 3).double()), [volume(0, 2)], "'0', got torch.float64"),
    ("a layer alone", lambda: nn.Conv2d(1, 1, 3), [volume(0, 2)], "single layer"),
    ("infinite", infinite, [volume(0, 2)], "finite weights in '1'"),
]


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


@pytest.mark.parametrize(
    ("build", "batches", "says"), [case[1:] for case in INT8_REFUSALS], ids=[case[0] for case in INT8_REFUSALS]
)
def test_int8_refuses_and_names_the_layer(build: Callable[[], nn.Module], batches: list[Tensor], says: str) -> None:
    with pytest.raises(InputError, match=says):
        quantized_int8(build(), batches)


def test_int8_refuses_a_backend_whose_values_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(quantized_int8.__globals__["BACKENDS"], nn.ConvTranspose3d, "x86")
    with pytest.raises(InputError, match=r"'0' in int8 within .* with x86"):
        quantized_int8(nn.Sequential(nn.ConvTranspose3d(16, 8, 2, 2)), [torch.randn(1, 16, 4, 4, 4)])


def test_int8_refuses_where_the_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quantized_int8.__globals__["BACKENDS"], nn.Conv2d, "absent")
    with pytest.raises(InputError, match="backend absent for '0', got a torch with"):
        quantized_int8(nn.Sequential(nn.Conv2d(1, 1, 3)), [volume(0, 2)])


@torch.no_grad()
@pytest.mark.parametrize("downsampling", WAYS)
def test_bfloat16_rounds_weights_and_input_and_returns_float32(downsampling: str) -> None:
    model = network(downsampling)
    rounded = bfloat16(model)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    found, expected = rounded(volume()), model(volume())
    assert found.dtype == torch.float32 and torch.equal(found, found.bfloat16().float())
    # The mean: where two of a window are nearly equal, rounding makes the other one the largest.
    assert 1e-4 < float((found - expected).abs().mean() / expected.abs().mean()) < 0.1


def test_bfloat16_refuses_other_parameters_by_name() -> None:
    with pytest.raises(InputError, match=r"torch.float64 in '0.weight'"):
        bfloat16(nn.Sequential(nn.Conv2d(1, 1, 3).double()))
    with pytest.raises(InputError, match="ReLU without any"):
        bfloat16(nn.ReLU())


def test_half_the_width_has_half_the_channels_at_each_stage() -> None:
    half = half_width(lambda features: PlainUNet(3, 1, 3, features), (8, 16, 32))
    assert [stage[0].conv.out_channels for stage in half.encoder] == [4, 8, 16]  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match=r"got 7 at stage 1 of \(8, 7\)"):
        half_width(lambda features: PlainUNet(3, 1, 3, features), (8, 7))


def test_the_axis_of_output_channels_is_the_second_of_a_transposed_convolution() -> None:
    assert [channel_axis(m) for m in (nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(1, 2, 3), nn.Linear(1, 2))] == [0, 1, 0]
