"""Do the weakest channels leave a network, and nothing else? Does what accompanies a training act when it is time?"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analyses.compress.structure import follow
from analyses.compress.weakest import prune_weakest, weakest
from analyses.experiments.comparison.companions import Cut, Sauronic
from analyses.models.nnunet import PlainUNet
from mcaprobe.errors import InputError


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 2, 1))


def scale(conv: nn.Conv2d, factors: list[float]) -> None:
    with torch.no_grad():
        conv.weight.copy_(torch.ones_like(conv.weight) * torch.tensor(factors)[:, None, None, None])


def test_the_channels_of_smallest_norm_go_and_the_others_stay_in_order() -> None:
    network, x = chain(), torch.rand(1, 1, 6, 6)
    scale(network[0], [3.0, -0.1, 2.0, 0.2])
    kept = network[0].weight[[0, 2]].clone(), network[0].bias[[0, 2]].clone()
    prune_weakest(network, x, 0.5)
    assert torch.equal(network[0].weight, kept[0]) and torch.equal(network[0].bias, kept[1])
    assert network[2].in_channels == 2 and network[3].out_channels == 2, "what the network puts out stays"
    assert network(x).shape == (1, 2, 6, 6)


@pytest.mark.parametrize(("share", "left"), [(0.0, (4, 3)), (0.2, (3, 2)), (0.5, (2, 1)), (0.7, (1, 1))])
def test_so_many_of_each_layer_go_as_the_share_rounds_to(share: float, left: tuple[int, int]) -> None:
    network = chain()
    prune_weakest(network, torch.rand(1, 1, 6, 6), share)
    assert (network[0].out_channels, network[2].out_channels) == left


def test_channels_that_go_together_have_the_sum_of_their_norms() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.one(x) + self.other(x))

    network = Added()
    scale(network.one, [1.0, 5.0, 3.0])
    scale(network.other, [9.0, 1.0, 2.0])  # sums: 10, 6, 5
    votes = weakest(network, follow(network, torch.rand(1, 1, 4, 4)), 0.34)
    assert votes["one"] == votes["other"] == [2]
    prune_weakest(network, torch.rand(1, 1, 4, 4), 0.34)
    assert network.one.weight.flatten().tolist() == [1.0, 5.0] and network.other.weight.flatten().tolist() == [9.0, 1.0]


def test_a_pooled_network_loses_the_same_channels_of_a_pool_and_of_what_is_unpooled() -> None:
    torch.manual_seed(0)
    network = PlainUNet(2, 1, 3, (8, 16), downsampling="pool", norm="batch").eval()
    training = network.training
    prune_weakest(network, torch.rand(2, 1, 8, 8), 0.25)
    assert network.training is training
    assert network.encoder[0][1].conv.out_channels == network.up[0].conv.out_channels == 6
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 3, 8, 8)


def test_a_share_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match=r"share in \[0, 1\), got 1"):
        prune_weakest(chain(), torch.rand(1, 1, 6, 6), 1)


def test_a_cut_happens_once_at_its_step_and_the_optimizer_follows() -> None:
    network, x = chain(), torch.rand(1, 1, 6, 6)
    optimizer = torch.optim.AdamW(network.parameters())
    network(x).sum().backward()
    optimizer.step()
    cut = Cut(network, x, optimizer, 3, 0.5)
    widths = []
    for step in range(1, 6):
        cut.after(step, 1.0)
        widths.append(network[0].out_channels)
    assert widths == [4, 4, 2, 2, 2] and cut.penalty() is None
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in network.parameters()}


class Noting:
    """Stands for Sauron: notes what it is told at the end of an epoch."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []
        self.closed = 0

    def penalty(self) -> Tensor:
        return torch.tensor(0.25)

    def end_epoch(self, training: float, validation: float) -> None:
        self.told.append((training, validation))

    def close(self) -> None:
        self.closed += 1


def test_an_epoch_ends_after_its_share_of_the_steps_with_the_mean_losses() -> None:
    noting: Any = Noting()
    network = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 2, 1)).train()
    modes: list[bool] = []

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        modes.append(network.training)
        return torch.tensor(float(len(modes)))

    pairs = [(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8))] * 2
    companion = Sauronic(network, noting, steps=7, epochs=3, validation=lambda: pairs, loss_of=loss)
    for step in range(1, 8):
        companion.after(step, float(step))
        assert network.training and noting.closed == (step == 7)
    assert noting.told == [(1.5, 1.5), (3.5, 3.5), (6.0, 5.5)] and modes == [False] * 6
    assert float(companion.penalty()) == 0.25
