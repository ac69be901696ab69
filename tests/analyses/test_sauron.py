"""Does Sauron measure, raise thresholds and prune as Algorithm 1 says, and is what it leaves as good?"""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from analyses.compress.baseline import SupervisedUNet
from analyses.compress.counting import costs, true_flops
from analyses.compress.delta import delta_opt, delta_prune
from analyses.compress.prune import decide
from analyses.compress.sauron import Report, Sauron, Settings
from analyses.compress.saved import counts
from analyses.compress.thresholds import Schedule
from analyses.models.nnunet import PlainUNet
from analyses.training.losses import segmentation_loss
from analyses.training.synthetic_heads import CLASSES, LEARNT, UNSEEN, Heads, load_heads
from mcaprobe.errors import InputError
from tests.analyses.pruning_hosts import HOSTS

HEADS = Heads()


def drawn(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


AT_ONCE = Schedule(maximum=0.9, steps=1, patience=0, stall="none")


def toy(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    torch.manual_seed(seed)
    network = PlainUNet(2, 1, 2, (6, 8))
    return network, torch.optim.Adam(network.parameters()), drawn((3, 1, 8, 8)).float()


def test_the_penalty_is_lambda_times_delta_opt_of_the_blocks_without_heads() -> None:
    network, optimizer, x = toy()
    blocks = [m for n, m in network.named_modules() if n.endswith("act") or n == "up.0"]
    maps: list[Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: maps.append(out))
    with Sauron(network, optimizer, x[:1], generator(), Settings(weight=0.25)) as sauron:
        network(x)
        found = sauron.penalty()
        expected = 0.25 * float(delta_opt(maps).detach())
        assert len(maps) == 7 and float(found.detach()) == pytest.approx(expected, rel=1e-5)
        found.backward()
        weight = network.encoder[0][0].conv.weight  # type: ignore[index,union-attr]
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0
        assert network.classifier.weight.grad is None


def test_delta_prune_is_the_mean_over_the_samples_of_all_batches() -> None:
    network, optimizer, x = toy()
    maps: list[Tensor] = []
    network.encoder[0][0].act.register_forward_hook(lambda _, __, out: maps.append(out))  # type: ignore[index,union-attr]
    with Sauron(network, optimizer, x[:1], generator()) as sauron:
        for batch in (x[:1], x[1:]):
            network(batch)
            sauron.penalty()
        found = sauron.deltas()["encoder.0.0.conv"]
        reference = sauron.references["encoder.0.0.conv"]
    # The hook is called by the penalty's forwards only: a trace runs without hooks.
    expected = torch.cat([delta_prune(m, reference) for m in maps]).mean(0)
    assert len(maps) == 2 and torch.allclose(found, expected.double(), rtol=1e-5)


def epochs(sauron: Sauron, network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, count: int) -> list[Report]:
    reports = []
    for _ in range(count):
        network.train()
        optimizer.zero_grad()
        loss = network(x).square().mean() + sauron.penalty()
        loss.backward()
        optimizer.step()
        reports.append(sauron.end_epoch(1.0, 1.0))
    return reports


def test_nothing_goes_at_a_threshold_of_0_even_where_maps_are_the_same() -> None:
    network, optimizer, x = toy()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    before = counts(network)
    with Sauron(network, optimizer, x[:1], generator()) as sauron:
        network(x)
        sauron.penalty()
        assert all(not deltas.any() for deltas in sauron.deltas().values())
        assert sauron.end_epoch(1.0, 1.0).removed == {}
    assert counts(network) == before


def test_all_but_pi_go_where_all_maps_are_the_same() -> None:
    network, optimizer, x = toy()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    with Sauron(network, optimizer, x[:1], generator(), Settings(schedule=AT_ONCE)) as sauron:
        for _ in range(2):
            network(x)
            sauron.penalty()
            report = sauron.end_epoch(1.0, 1.0)
    assert set(report.channels.values()) == {1}
    for layer, reference in report.references.items():
        assert reference not in report.removed[layer]


@pytest.mark.parametrize("rule", ["all", "majority", "any"])
@pytest.mark.parametrize("name", ["plain 2D, strides", "plain 2D, pools", "additions", "competing", "groups"])
def test_channels_below_the_threshold_go_and_pi_never_does(name: str, rule: str) -> None:
    host = HOSTS[name]
    network, x = host.network().train(), host.example()
    x = torch.cat([x, x.flip(-1)]) if len(x) == 1 else x
    optimizer = torch.optim.Adam(network.parameters())
    options = Settings(schedule=AT_ONCE, rule=rule)
    with Sauron(network, optimizer, x[:1], generator(1), options) as sauron:
        before = {layer: len(channels) for layer, channels in sauron.structure.outputs.items()}
        for epoch in range(1, 4):
            network(x)
            sauron.penalty()
            deltas, structure = sauron.deltas(), sauron.structure
            report = sauron.end_epoch(1.0, 1.0)
            assert report.epoch == epoch
            votes = {layer: [i for i, d in enumerate(deltas[layer].tolist()) if d < report.thresholds[layer]]
                     for layer in deltas}  # fmt: skip
            pi = {layer: [r] for layer, r in report.references.items()}
            assert report.removed == decide(structure, votes, pi, rule)
            for layer, removed in report.removed.items():
                assert report.references[layer] not in removed
                assert report.channels[layer] == before[layer] - len(removed) or layer not in report.channels
                if rule == "all":
                    assert set(removed) <= set(votes[layer])
            before = {layer: len(channels) for layer, channels in sauron.structure.outputs.items()}
            assert bool(report.removed) == (epoch == 2) or rule == "all" or epoch == 3
        states = {id(p): s for p, s in optimizer.state.items()}
        assert {id(p) for p in network.parameters()} >= states.keys()


def test_a_layer_s_share_of_pruned_filters_holds_its_threshold_back_in_the_next_epoch() -> None:
    network, optimizer, x = toy()
    options = Settings(schedule=Schedule(maximum=0.9, steps=3, patience=0))
    with Sauron(network, optimizer, x[:1], generator(), options) as sauron:
        reports = epochs(sauron, network, optimizer, x, 8)
    assert any(report.removed for report in reports)
    sizes = {layer: 6 if layer.startswith(("encoder.0", "decoder", "up")) else 8 for layer in reports[0].channels}
    for last, report in itertools.pairwise(reports):
        for layer, conditions in report.conditions.items():
            share = len(last.removed.get(layer, ())) / (last.channels[layer] + len(last.removed.get(layer, ())))
            assert conditions.few_pruned == (share < 0.02)
            rose = report.thresholds[layer] > last.thresholds[layer]
            assert rose == (conditions.all and last.thresholds[layer] < 0.9)
            sizes[layer] -= len(report.removed.get(layer, ()))
            assert report.channels[layer] == sizes[layer]


def test_the_same_generator_gives_the_same_pruning_and_another_one_other_references() -> None:
    def run(seed: int) -> list[Report]:
        network, optimizer, x = toy()
        with Sauron(network, optimizer, x[:1], generator(seed), Settings(schedule=AT_ONCE)) as sauron:
            return epochs(sauron, network, optimizer, x, 3)

    first = run(0)
    assert first == run(0)
    assert first[0].references != run(1)[0].references and first[0].references != first[1].references


def test_the_global_generator_is_left_alone() -> None:
    network, optimizer, x = toy()
    state = torch.random.get_rng_state()
    with Sauron(network, optimizer, x[:1], generator(), Settings(schedule=AT_ONCE)) as sauron:
        epochs(sauron, network, optimizer, x, 2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_maps_are_collected_in_training_mode_only_and_hooks_end_with_the_context() -> None:
    network, optimizer, x = toy()
    with Sauron(network, optimizer, x[:1], generator()) as sauron:
        network.eval()
        network(x)
        with pytest.raises(InputError, match="training mode before each penalty"):
            sauron.penalty()
        with pytest.raises(InputError, match="a penalty before the end of an epoch"):
            sauron.end_epoch(1.0, 1.0)
        network.train()
        network(x)
        with pytest.raises(InputError, match=r"finite losses, got nan and 1.0"):
            sauron.end_epoch(math.nan, 1.0)
        sauron.penalty()
        with pytest.raises(InputError, match="training mode before each penalty"):
            sauron.penalty()
    assert all(not module._forward_hooks for module in network.modules())


def test_heads_of_deep_supervision_follow_though_evaluation_does_without_them() -> None:
    torch.manual_seed(0)
    network, x = SupervisedUNet(2, 1, 2, (4, 6, 8, 8)).eval(), torch.rand(2, 1, 32, 32)
    with Sauron(network, None, x[:1], generator(), Settings(schedule=AT_ONCE)) as sauron:
        assert not network.training and not {"classifier", "heads.0"} & set(sauron.layers)
        network.train()
        for _ in range(2):
            network(x)
            sauron.penalty()
            network.eval()
            report = sauron.end_epoch(1.0, 1.0)
            network.train()
    assert report.removed and [tuple(y.shape) for y in network(x)] == [(2, 2, 32, 32), (2, 2, 16, 16)]
    assert network.heads[0].in_channels == report.channels["decoder.1.1.conv"]


def test_a_network_in_which_nothing_may_go_is_refused() -> None:
    with pytest.raises(InputError, match="a channel may go, found none"):
        Sauron(nn.Sequential(nn.Conv2d(1, 3, 1)), None, torch.rand(1, 1, 4, 4), generator())


def dice(network: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """Return the Dice of each class but the background."""
    with torch.no_grad():
        found = network.eval()(x).argmax(1)
    both = [((found == c) & (y == c)).sum() for c in range(1, CLASSES)]
    return [float(2 * n / ((found == c).sum() + (y == c).sum())) for c, n in enumerate(both, 1)]


def slices(which: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the 16 middle slices of each head, (16 count, 1, 24, 24), and their classes (16 count, 24, 24)."""
    volumes, classes = load_heads(HEADS, which, count)
    return volumes[:, 0, 4:20].flatten(0, 1)[:, None], classes[:, 4:20].flatten(0, 1)


def learn(options: Settings) -> tuple[nn.Module, list[Report], list[float]]:
    """Train on slices of heads, 34 epochs with Sauron and 8 without; return the Dice on those of other heads."""
    torch.manual_seed(0)
    network, order = PlainUNet(2, 1, CLASSES, (8, 16, 32)), generator(5)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    (x, y), (other_x, other_y) = slices(LEARNT, 24), slices(UNSEEN, 8)
    reports = []

    def epoch(penalty: Callable[[], Tensor | float]) -> float:
        losses = []
        for _ in range(8):
            batch = torch.randint(len(x), (8,), generator=order)
            loss = segmentation_loss(network.train()(x[batch]), y[batch])
            optimizer.zero_grad()
            (loss + penalty()).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses)

    with Sauron(network, optimizer, x[:1], generator(), options) as sauron:
        for _ in range(34):
            training = epoch(sauron.penalty)
            with torch.no_grad():
                validation = float(segmentation_loss(network.eval()(other_x), other_y))
            reports.append(sauron.end_epoch(training, validation))
    optimizer.param_groups[0]["lr"] = 3e-3
    for _ in range(8):
        epoch(lambda: 0.0)
    return network, reports, dice(network, other_x, other_y)


def test_a_network_that_learns_with_sauron_is_smaller_and_as_good() -> None:
    shape = (1, 1, HEADS.size, HEADS.size)
    whole, _, before = learn(Settings(weight=0.0, schedule=Schedule(maximum=0.0)))
    smaller, reports, after = learn(Settings(schedule=Schedule(steps=4, patience=0)))
    assert true_flops(costs(smaller, shape)) < 0.5 * true_flops(costs(whole, shape))
    assert min(before) > 0.95 and all(new > old - 0.02 for old, new in zip(before, after, strict=True))
    sizes = [sum(report.channels.values()) for report in reports]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 184 > sizes[-1]
