"""Does a convolution of active kernels compute what the masked dense one does, and count no other NaN?"""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nanops
from analyses.compress.dsff import Masks, Schedule
from analyses.compress.gathered import GatheredConv, gathered
from analyses.compress.masked import over
from analyses.models.e2enet import FUSION, E2ENet
from mcaprobe.errors import InputError

NAN = float("nan")
CASES = {
    "1-D": (nn.Conv1d(3, 4, 3, padding=1), (7,)),
    "2-D, stride": (nn.Conv2d(3, 4, 3, 2, 1, bias=False), (7, 6)),
    "3-D, flat": (nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), (3, 5, 4)),
    "1-D, transposed": (nn.ConvTranspose1d(3, 4, 3, 2, 1, 1), (5,)),
    "2-D, transposed, dilation": (nn.ConvTranspose2d(3, 4, 3, dilation=2), (5, 4)),
    "3-D, transposed": (nn.ConvTranspose3d(3, 4, 2, 2, bias=False), (3, 2, 2)),
}


def dense(conv: nn.Module, mask: Tensor) -> nn.Module:
    """Fill a convolution with numbers, and its inactive kernels with 0."""
    with torch.no_grad():
        for parameter in conv.double().parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
        conv.weight.masked_fill_(~over(mask, conv.weight), 0)
    return conv


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None)
@given(bits=st.lists(st.booleans(), min_size=12, max_size=12).filter(any))
def test_gathered_kernels_compute_what_the_masked_dense_ones_do(name: str, bits: list[bool]) -> None:
    conv, size = CASES[name]
    mask = torch.tensor(bits).view(conv.weight.shape[:2])
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sparse = GatheredConv(name, dense(conv, mask), mask)
    with torch.no_grad():
        assert (sparse(x) - conv(x)).abs().max() <= 1e-12
    held = sum(p.numel() for p in sparse.parameters())
    bias = 0 if conv.bias is None else 4
    assert held - bias == int(mask.sum()) * conv.weight[0, 0].numel()


def sparse_network(features: tuple[int, ...] = (6, 8, 10)) -> tuple[E2ENet, Masks]:
    torch.manual_seed(0)
    network = E2ENet(1, 3, features).double().eval()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    return network, Masks(network, optimizer, FUSION, 0.8, Schedule(9), torch.Generator().manual_seed(0))


def test_a_gathered_network_is_the_masked_one_and_holds_what_is_active() -> None:
    network, masks = sparse_network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    sparse = gathered(network, masks.masks)
    x = torch.randn(1, 1, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (sparse(x) - network(x)).abs().max() <= 1e-12
    off = sum(int((~m).sum()) * before[name][0, 0].numel() for name, m in masks.masks.items())
    assert sum(p.numel() for p in sparse.parameters()) == sum(p.numel() for p in before.values()) - off
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def three_inputs() -> tuple[nn.Conv2d, Tensor]:
    """Return a convolution whose outputs read the inputs {0, 1}, {2} and none."""
    mask = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    return dense(nn.Conv2d(3, 3, 1), mask), mask  # type: ignore[return-value]


def test_a_weight_of_zero_does_not_stop_a_nan_and_a_kernel_that_is_not_there_does() -> None:
    conv, mask = three_inputs()
    x = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    x[0, 2] = NAN
    with torch.no_grad():
        assert conv(x).isnan().flatten().tolist() == [True, True, True]
        assert GatheredConv("c", conv, mask)(x).isnan().flatten().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("nans", "dense_skips", "skips"),
    [
        ([2], [False] * 3, [False, True, False]),
        ([0], [False] * 3, [True, False, False]),
        ([0, 2], [True] * 3, [True, True, False]),
        ([0, 1, 2], [True] * 3, [True, True, False]),
        ([], [False] * 3, [False] * 3),
    ],
)
def test_converted_only_the_inputs_of_active_kernels_count(
    nans: list[int], dense_skips: list[bool], skips: list[bool]
) -> None:
    conv, mask = three_inputs()
    x = torch.ones(1, 3, 2, 2, dtype=torch.float64)
    x[0, nans] = NAN
    with torch.inference_mode():
        whole = nanops.convert(nn.Sequential(conv), threshold=0.5, final="keep")(x)
        sparse = nanops.convert(gathered(nn.Sequential(conv), {"0.weight": mask}), threshold=0.5, final="keep")
        with nanops.count_skipped(sparse) as skipped:
            y = sparse(x)
    assert whole.isnan().all((0, 2, 3)).tolist() == dense_skips
    assert y.isnan().all((0, 2, 3)).tolist() == skips
    assert skipped.layers["0"].spared == 4 * (2 * skips[0] + skips[1])


def test_a_gathered_network_skips_what_the_dense_one_cannot() -> None:
    network, masks = sparse_network((6, 12, 24))
    x = torch.zeros(1, 1, 16, 16, 16, dtype=torch.float64)
    x[..., 4:12, 4:12, 4:12] = torch.rand(8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spared = []
    for model in (network, gathered(network, masks.masks)):
        converted = nanops.convert(model, pooling="aggressive", threshold=0.5)
        with torch.inference_mode(), nanops.count_skipped(converted) as skipped:
            assert not converted(x).isnan().any()
        spared.append(skipped.mac_weighted)
    assert all(a < b for a, b in pairwise(spared))


@pytest.mark.parametrize(
    ("layer", "name", "mask", "words"),
    [
        (nn.Linear(3, 4), "0.weight", torch.ones(4, 3) > 0, "layer '0', Linear"),
        (nn.Conv1d(4, 4, 3, groups=2), "0.weight", torch.ones(4, 2) > 0, "layer '0' with 2 groups"),
        (nn.Conv1d(3, 4, 3, padding_mode="circular"), "0.weight", torch.ones(4, 3) > 0, "padding 'circular'"),
        (nn.Conv1d(3, 4, 3), "0.weight", torch.ones(3, 4) > 0, r"shape \(4, 3\) .* got \(3, 4\) with 12 for layer '0'"),
        (nn.Conv1d(3, 4, 3), "0.weight", torch.zeros(4, 3) > 0, "with an active kernel, got .* with 0 for layer '0'"),
        (nn.Conv1d(3, 4, 3), "0.wieght", torch.ones(4, 3) > 0, "got '0.wieght'; did you mean '0.weight'"),
        (nn.Conv1d(3, 4, 3), "0.bias", torch.ones(4, 3) > 0, "a layer's weight, got '0.bias'"),
    ],
)
def test_what_cannot_be_gathered_is_refused(layer: Any, name: str, mask: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        gathered(nn.Sequential(layer), {name: mask})
