"""Do blocks go where they belong in a network, come back from its weights, count as they should, and learn?"""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from analyses.compress.counting import costs
from analyses.compress.fasterfusion import claims, fold, fuse, parameters, place, reload
from analyses.models.fasterfusion import Block, TrainingBlock
from analyses.models.nnunet import FEATURES, PlainUNet, Unit
from mcaprobe.errors import InputError
from tests.analyses.fusion_blocks import apart, trained

CLASSES = 26
DEEP_HEADS = CLASSES * sum(FEATURES[1:5])  # the other heads of deep supervision, which papers count


def small(dims: int = 2, **options: object) -> PlainUNet:
    torch.manual_seed(0)
    options = {"features": (4, 8, 8), "channels": 2, "classes": 3} | options
    return PlainUNet(dims, **options).double().eval()  # type: ignore[arg-type]


def blocks_of(network: nn.Module) -> dict[str, Block]:
    return {path: m for path, m in network.named_modules() if isinstance(m, Block)}


@pytest.fixture(scope="module")
def whole() -> tuple[PlainUNet, PlainUNet]:
    """nnU-Net of six stages and 26 classes, without and with blocks."""
    torch.manual_seed(0)
    plain = PlainUNet(3, 1, CLASSES)
    return plain, place(plain).eval()


def test_the_ten_units_of_160_channels_and_more_are_replaced(whole: tuple[PlainUNet, PlainUNet]) -> None:
    plain, placed = whole
    expected = {f"{side}.{i}.{k}" for side, i in (("encoder", 3), ("encoder", 4), ("encoder", 5), ("decoder", 3),
                                                  ("decoder", 4)) for k in (0, 1)}  # fmt: skip
    assert set(blocks_of(placed)) == expected
    for path, block in blocks_of(placed).items():
        unit = plain.get_submodule(path)
        assert isinstance(unit, Unit) and isinstance(block, TrainingBlock)
        assert (block.channels.inputs, block.channels.outputs) == (unit.conv.in_channels, unit.conv.out_channels)
        assert block.stride == unit.conv.stride
    assert not blocks_of(plain)


def test_the_whole_network_has_the_parameters_of_the_specification(whole: tuple[PlainUNet, PlainUNet]) -> None:
    plain, placed = whole
    found = [parameters(n) + DEEP_HEADS for n in (plain, placed, fuse(placed), fold(placed))]
    assert found == [31_213_984, 10_676_128, 11_882_016, 10_664_352]
    assert [round(n / 1e6, 3) for n in found[:3]] == [31.214, 10.676, 11.882]
    assert [round(100 * (n / found[0] - 1), 1) for n in found[1:3]] == [-65.8, -61.9]


def test_multiply_accumulates_of_the_whole_network_hardly_change(whole: tuple[PlainUNet, PlainUNet]) -> None:
    plain, placed = whole
    shape = (1, 1, 128, 128, 128)
    found = [sum(cost.products for cost in costs(n, shape)) for n in (plain, placed, fold(placed), fuse(placed))]
    assert found == [478_842_191_872, 458_638_360_576, 458_638_360_576, 459_716_558_848]


def test_what_the_paper_says_of_fusing_and_of_81_percent_is_not_reproduced() -> None:
    rows = {claim.figure: claim for claim in claims()}
    wrong = [claim.here for claim in rows.values() if not claim.reproduced]
    assert [round(value, 3) for value in wrong] == [0.869, 3.598, 0.62, 2.63]
    assert len(rows) == 7


def test_multiply_accumulates_are_those_of_the_convolutions_at_their_sizes() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, 2, padding=1), nn.ReLU(), nn.ConvTranspose2d(3, 5, 2, 2))
    found = [cost.products for cost in costs(network, (2, 2, 8, 6))]
    assert found == [2 * (4 * 3) * 9 * 2 * 3, 2 * (4 * 3) * 3 * 5 * 4]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("downsampling", ["stride", "pool"])
@torch.no_grad()
def test_a_network_with_blocks_is_the_same_fused_folded_and_reloaded(dims: int, downsampling: str) -> None:
    plain = small(dims, downsampling=downsampling)
    placed = trained(place(plain, 8, 3))
    x = torch.randn(2, 2, *(8,) * dims, dtype=torch.float64)
    assert placed(x).shape == plain(x).shape
    for form in (placed, fuse(placed), fold(placed)):
        assert apart(form(x), placed(x)) <= 1e-12
        state = {name: value.clone() for name, value in form.state_dict().items()}
        again = reload(small(dims, downsampling=downsampling), state)
        assert {p: type(b) for p, b in blocks_of(again).items()} == {p: type(b) for p, b in blocks_of(form).items()}
        assert all(b.channels == blocks_of(form)[p].channels for p, b in blocks_of(again).items())
        assert torch.equal(again(x), form(x))
        assert len(blocks_of(form)) == 6


@torch.no_grad()
def test_a_block_of_ratio_1_is_reloaded() -> None:
    placed = trained(place(small(), 8, 1))
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    for form in (placed, fuse(placed), fold(placed)):
        assert torch.equal(reload(small(), form.state_dict())(x), form(x))


def test_a_state_of_another_network_is_named() -> None:
    state = place(small(), 8).state_dict()
    with pytest.raises(InputError, match=r"of this PlainUNet with blocks.*another shape: encoder.0.0.conv.weight"):
        reload(small(features=(3, 8, 8)), state)
    del state["encoder.1.0.last.bias"]
    with pytest.raises(InputError, match=r"another shape: encoder.1.0.last.bias"):
        reload(small(), state)


def test_placing_keeps_dtype_mode_and_the_original() -> None:
    plain = small().to(torch.bfloat16)
    before = deepcopy(plain.state_dict())
    placed = place(plain, 8)
    assert {p.dtype for p in placed.parameters()} == {torch.bfloat16}
    assert not any(m.training for m in placed.modules())
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert not {p.data_ptr() for p in plain.parameters()} & {p.data_ptr() for p in placed.parameters()}


def test_a_generator_decides_the_weights_of_the_blocks() -> None:
    a, b = (place(small(), 8, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class Mixed(nn.Module):
    """Units as other networks write them: names of their own, a Sequential, an alias, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                                  nn.Dropout(0.5), nn.Conv2d(8, 4, 1))  # fmt: skip
        self.own = Aliased()
        self.again = self.own
        self.up = nn.ConvTranspose2d(4, 8, 2, 2)
        self.head = nn.Conv2d(8, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 9, H, W) of x (N, 4, H, W)."""
        x = self.own(self.flat(x))
        out: Tensor = self.head(self.up(self.again(x)))
        return out


class Aliased(nn.Module):
    """nnU-Net's own spelling: the layers, and a Sequential of the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, 1, 1)
        self.normal, self.nonlin = nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.01)
        self.all_modules = nn.Sequential(self.convolution, self.normal, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        """Return all of it."""
        out: Tensor = self.all_modules(x)
        return out


def test_units_of_other_networks_are_recognised() -> None:
    placed = place(Mixed(), 4, 2)
    assert set(blocks_of(placed)) == {"flat.0", "own"}
    assert placed.own is placed.again
    assert [type(layer) for layer in placed.flat[1:]] == [nn.Identity, nn.Identity, nn.Dropout, nn.Conv2d]
    assert placed(torch.randn(1, 4, 6, 6)).shape == (1, 9, 12, 12)
    assert isinstance(place(Unit(2, 4, 4, (1, 1)), 4), TrainingBlock)
    again = reload(Mixed(), placed.state_dict())
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(again.eval()(x), placed.eval()(x))


def test_layers_that_are_used_twice_in_a_sequential_are_units_each_time() -> None:
    act, conv = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    layers = [conv, nn.BatchNorm2d(4), act, nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), act]
    network = nn.ModuleList([nn.Sequential(*layers), nn.Sequential(conv, nn.BatchNorm2d(4), act, nn.Sigmoid())])
    placed = place(network, 4, 2)
    kinds = [[type(layer) for layer in part] for part in placed]
    assert kinds == [2 * [TrainingBlock, nn.Identity, nn.Identity],
                     [TrainingBlock, nn.Identity, nn.Identity, nn.Sigmoid]]  # fmt: skip
    assert placed[0][0] is placed[1][0] and placed[0][0] is not placed[0][3]


def test_units_of_less_than_the_least_number_of_channels_stay() -> None:
    assert set(blocks_of(place(Mixed(), 5, 2))) == {"flat.0"}


class Reversed(Unit):
    """The same layers, the norm behind the activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return another function of x."""
        out: Tensor = self.norm(self.act(self.conv(x)))
        return out


def unit(**options: object) -> nn.Module:
    made = Unit(2, 8, 8, (1, 1))
    made.conv = nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1} | options)  # type: ignore[arg-type]
    return made


REFUSED = {
    "alone": (nn.Sequential(nn.Conv2d(8, 8, 3)), "Expected layer 'net.0' in a module of a convolution, a norm"),
    "no norm": (nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()), "Expected layer 'net.0' in a module"),
    "order": (Reversed(2, 8, 8, (1, 1)), "Expected layer 'net.conv' in a module"),
    "kernel": (unit(kernel_size=5), r"Expected kernel \(3, 3\) in layer 'net.conv', got \(5, 5\)"),
    "flat kernel": (unit(kernel_size=(1, 3)), r"Expected kernel \(3, 3\) in layer 'net.conv'"),
    "padding": (unit(padding=0), r"Expected padding \(1, 1\) in layer 'net.conv', got \(0, 0\)"),
    "dilation": (unit(dilation=2), r"Expected dilation \(1, 1\) in layer 'net.conv'"),
    "groups": (unit(groups=2), "Expected groups 1 in layer 'net.conv', got 2"),
    "padding mode": (unit(padding_mode="reflect"), "Expected padding mode zeros in layer 'net.conv', got reflect"),
    "too few": (Unit(2, 3, 8, (1, 1)), "In layer 'net.conv': Expected a ratio from 1 to 3"),
    "narrow": (Unit(2, 3, 7, (1, 1)), "Expected a unit with 8 output channels or more, the widest has 7"),
    "empty": (nn.ReLU(), "the widest has 0"),
}


@pytest.mark.parametrize(("network", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_replaced_is_named(network: nn.Module, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        place(nn.ModuleDict({"net": network}), 8)


@pytest.mark.parametrize("form", ["training", "fused", "folded"])
def test_every_weight_of_every_form_has_a_gradient(form: str) -> None:
    placed = trained(place(small(), 8))
    network = {"training": placed.train(), "fused": fuse(placed.eval()), "folded": fold(placed.eval())}[form]
    network.train(form == "training")(torch.randn(2, 2, 8, 8, dtype=torch.float64)).square().mean().backward()
    for path, block in blocks_of(network).items():
        for name, value in block.named_parameters():
            # A shift in front of a norm over the batch is taken off again.
            gone = form == "training" and name in ("spatial.bias", "pointwise.bias")
            assert value.grad is not None and bool(value.grad.abs().max() > 1e-12) is not gone, f"{path}.{name}"


def test_a_tiny_network_learns_and_fuses_to_what_it_learnt() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = place(PlainUNet(2, 1, 2, (4, 8, 8)), 8, generator=generator).train()
    x = torch.randn(8, 1, 16, 16, generator=generator)
    x = nn.functional.avg_pool2d(x, 5, 1, 2) * 5
    target = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        expected = network.eval()(x)
        assert (expected.argmax(1) == target).float().mean() > 0.9
        for form in (fuse(network), fold(network)):
            assert apart(form(x), expected) <= 5e-6
            assert torch.equal(form(x).argmax(1), expected.argmax(1))
