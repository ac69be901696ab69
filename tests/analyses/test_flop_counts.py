"""Are the counts those of the specification, of the papers, and of torch's own counter? Does the score come out?"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from analyses.compress.counting import LayerCost, costs, paper_flops, parameters, trade_off, true_flops
from analyses.compress.dsff import Masks, Schedule
from analyses.compress.gathered import gathered
from analyses.models.e2enet import FUSION, E2ENet
from analyses.models.nnunet import HeadedUNet
from mcaprobe.errors import InputError

FINEST = "nodes.x0_*.units.*.conv.weight"  # its fusion convolutions have 48 channels


def network(kind: str, channels: int, classes: int) -> nn.Module:
    with torch.device("meta"):
        return E2ENet(channels, classes) if kind == "E2ENet" else HeadedUNet(3, channels, classes)


def count(kind: str, channels: int, classes: int, sparsity: float = 0.0, size: int = 128, finest: float | None = None
          ) -> list[LayerCost]:  # fmt: skip
    shares = dict.fromkeys(FUSION, 1 - sparsity) if sparsity else {}
    if finest is not None:
        shares[FINEST] = finest
    return costs(network(kind, channels, classes), (1, channels, size, size, size), shares)


# Giga-operations that the specification expects of us, to their last digit.
OURS = {
    "nnU-Net AMOS": (("nnU-Net", 1, 16), 1067.89),
    "nnU-Net BraTS": (("nnU-Net", 4, 4), 1076.62),
    "dense": (("E2ENet", 1, 16), 3069.30),
    "S = .7, BraTS": (("E2ENet", 4, 4, 0.7), 1066.96),
    "S = .7, 48 channels .2": (("E2ENet", 1, 16, 0.7, 128, 0.2), 969.05),
    "S = .8": (("E2ENet", 1, 16, 0.8), 778.35),
    "S = .9": (("E2ENet", 1, 16, 0.9), 491.98),
    "BTCV 96^3": (("E2ENet", 1, 14, 0.7, 96), 448.95),
}


@pytest.mark.parametrize("name", OURS)
def test_operations_in_the_papers_convention_are_those_of_the_specification(name: str) -> None:
    arguments, expected = OURS[name]
    assert round(paper_flops(count(*arguments)) / 1e9, 2) == expected  # type: ignore[arg-type]


# 1 for each output of the fusion's (the decoder's) convolutions gives what was published for dense networks.
PUBLISHED = {
    "nnU-Net AMOS": (("nnU-Net", 1, 16), "decoder", 1067.89),
    "nnU-Net BraTS": (("nnU-Net", 4, 4), "decoder", 1076.62),
    "E2ENet AMOS": (("E2ENet", 1, 16), "nodes", 3069.55),
    "E2ENet BraTS": (("E2ENet", 4, 4), "nodes", 3071.78),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_dense_counts_add_one_for_an_output_of_the_second_half(name: str) -> None:
    (kind, channels, classes), prefix, expected = PUBLISHED[name]
    found = count(kind, channels, classes)
    assert round(paper_flops(found, lambda c: c.sums * (c.bias and c.layer.startswith(prefix))) / 1e9, 2) == expected
    assert round(paper_flops(found, lambda c: 0) / 1e9, 2) < expected


TRUE = {
    "nnU-Net": (("nnU-Net", 1, 16), 957.05),
    "dense": (("E2ENet", 1, 16), 2024.71),
    "S = .8": (("E2ENet", 1, 16, 0.8), 569.02),
    "S = .9": (("E2ENet", 1, 16, 0.9), 387.06),
}


@pytest.mark.parametrize("name", TRUE)
def test_the_true_count_has_each_product_once(name: str) -> None:
    arguments, expected = TRUE[name]
    assert round(true_flops(count(*arguments)) / 1e9, 2) == expected  # type: ignore[arg-type]


# The specification's true count of nnU-Net, 957.0, is that above; those of E2ENet have one more for each output.
@pytest.mark.parametrize(("sparsity", "expected"), [(0.0, 2026.4), (0.8, 570.7), (0.9, 388.8)])
def test_the_specifications_true_counts_of_e2enet_add_one_for_each_output(sparsity: float, expected: float) -> None:
    found = count("E2ENet", 1, 16, sparsity)
    assert round(true_flops(found, lambda cost: cost.sums) / 1e9, 1) == expected


@pytest.mark.parametrize(
    "build",
    [
        lambda: E2ENet(2, 3, (4, 5, 6, 7), strides=(1, (1, 2, 2), 2, 2), heads=2),
        lambda: HeadedUNet(3, 2, 3, (3, 5, 6)),
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3, 2, dilation=2, groups=2), nn.ConvTranspose3d(4, 6, 3, 2, groups=2)),
        lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 3, 3), nn.Linear(4094, 5), nn.Linear(5, 2, bias=False)),
    ],
    ids=["E2ENet", "nnU-Net", "groups", "linear"],
)
def test_torch_counts_the_same_products(build: Callable[[], nn.Module]) -> None:
    model, shape = build(), (1, 2, 16, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(shape))
    found = costs(model, shape)
    assert true_flops(found) == counter.get_total_flops()
    assert all(p.device.type == "cpu" for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_runs_twice_is_counted_twice() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    found = costs(nn.Sequential(conv, conv), (3, 2, 5, 5))
    assert found == [LayerCost("0", False, True, 9, 4, 1.0, 2, 75, 75)] * 2
    assert (found[0].sums, found[0].products, found[0].paper_products) == (150, 2700, 2700)


def test_a_transposed_convolution_is_counted_at_its_input_or_by_the_paper_at_its_output() -> None:
    (cost,) = costs(nn.ConvTranspose2d(3, 5, 2, 2, bias=False), (1, 3, 4, 4), {"weight": 0.2})
    assert cost == LayerCost("", True, False, 4, 15, 0.2, 5, 16, 64)
    assert (cost.products, cost.paper_products) == (pytest.approx(4 * 3 * 16), pytest.approx(4 * 3 * 64))


# The paper has 9.44, 7.64, 11.23 M; for BraTS 11.24; for BTCV 11.25.
@pytest.mark.parametrize(
    ("channels", "classes", "sparsity", "active"),
    [(1, 16, 0.8, 9_445_351), (1, 16, 0.9, 7_638_615), (1, 16, 0.7, 11_252_025), (4, 4, 0.7, 11_245_449),
     (1, 14, 0.7, 11_250_713), (1, 16, 0.0, 23_899_088)],
)  # fmt: skip
def test_active_parameters_are_as_many_as_the_specification_says(
    channels: int, classes: int, sparsity: float, active: int
) -> None:
    model = network("E2ENet", channels, classes)
    masks = Masks(model, torch.optim.SGD(model.parameters(), 0.01), FUSION, sparsity, Schedule(1), torch.Generator())
    assert parameters(model, masks.masks) == (sum(p.numel() for p in model.parameters()), active)


def test_the_number_of_nnunets_parameters_is_that_of_the_specification() -> None:
    assert [round(parameters(network("nnU-Net", *io))[0] / 1e6, 3) for io in ((1, 16), (4, 4))] == [31.206, 31.199]
    with torch.device("meta"):
        flat = HeadedUNet(3, 1, 16, strides=(1, 2, 2, 2, 2, (1, 2, 2)))
    assert round(parameters(flat)[0] / 1e6, 3) == 30.796


def test_the_densities_of_masks_count_what_is_active() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    masks = Masks(model, optimizer, "*.weight", 0.6, Schedule(1), torch.Generator())
    first, second = costs(model, (1, 3, 6, 6), masks.densities())
    assert (first.products, second.products) == (6 * 9 * 16, 8 * 16)


def test_the_last_glob_that_matches_counts() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1))
    assert [c.density for c in costs(model, (1, 3, 6, 6), {"*": 0.5, "1.*": 0.2})] == [0.5, 0.2]


# Table 2 of the paper: mDice, parameters and operations of networks on BraTS; the last FLOPs are illegible in our copy.
BRATS = [(74.1, 58.38, 3938.25, 1.12), (74.1, 31.20, 1076.62, 1.35), (74.5, 11.24, 1067.06, 1.57),
         (74.2, 9.44, 780.97, 1.72), (74.3, 7.63, 494.52, 2.00)]  # fmt: skip


def test_the_score_of_table_2_comes_out() -> None:
    dice, size, flops, published = zip(*BRATS, strict=True)
    assert [round(score, 2) for score in trade_off(dice, size, flops)] == list(published)
    assert trade_off([1, 2], [3, 4], [5, 10], 2, 0.25) == [1 + 0.25 * 2, 2 + 0.25 * (0.75 + 0.5)]


@pytest.mark.parametrize("numbers", [([], [], []), ([1], [1, 2], [1]), ([1], [0], [1]), ([1], [1], [-1])])
def test_a_score_of_numbers_that_make_no_sense_is_refused(numbers: tuple[list[float], ...]) -> None:
    with pytest.raises(InputError, match="one positive dice"):
        trade_off(*numbers)


class Functional(nn.Module):
    """A convolution that no module makes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, x.new_ones(1, 2, 3, 3))


def test_a_convolution_that_no_module_makes_is_not_passed_over() -> None:
    with pytest.raises(InputError, match="got 1 calls, 0 of them"):
        costs(Functional(), (1, 2, 5, 5))
    conv = nn.Sequential(nn.Conv2d(2, 2, 3))
    with pytest.raises(InputError, match="modules of torch"):
        costs(gathered(conv, {"0.weight": torch.eye(2) > 0}), (1, 2, 5, 5))


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"0.wieght": 0.5}, "got '0.wieght'; did you mean '0.weight'"),
        ({"0.weight": 0.0}, r"in \(0, 1\] for '0.weight', got 0.0"),
        ({"0.weight": 1.5}, "got 1.5"),
    ],
)
def test_densities_that_make_no_sense_are_refused(shares: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        costs(nn.Sequential(nn.Conv2d(2, 2, 3)), (1, 2, 5, 5), shares)


def test_parameters_of_masks_of_another_model_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3))
    with pytest.raises(InputError, match=r"got '1\.weight'; did you mean '0\.weight'"):
        parameters(model, {"1.weight": torch.ones(3, 2) > 0})
    with pytest.raises(InputError, match=r"shape \(3, 2\) for '0.weight', got \(2, 3\)"):
        parameters(model, {"0.weight": torch.ones(2, 3) > 0})
