"""Does a pruned network compute what the original computes with these channels forced to 0, and nothing else?"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from analyses.compress.baseline import CONFIGURATIONS, SupervisedUNet, baseline
from analyses.compress.counting import costs
from analyses.compress.prune import decide, prune
from analyses.compress.saved import counts
from analyses.compress.structure import Structure, follow
from analyses.models.nnunet import PlainUNet
from mcaprobe.errors import InputError
from tests.analyses.pruning_hosts import HOSTS, Attending, Host, ResidualUNet
from tests.reference.silenced import silenced


def drawn(structure: Structure, share: float, seed: int, rule: str = "any") -> dict[str, list[int]]:
    """Return whole classes to which random votes lead."""
    generator = torch.Generator().manual_seed(seed)
    votes = {
        layer: [i for i in structure.free(layer) if float(torch.rand((), generator=generator)) < share]
        for layer in structure.prunable()
    }
    return decide(structure, votes, rule=rule)


def pruned(network: nn.Module, removed: dict[str, list[int]], x: Tensor) -> nn.Module:
    smaller = copy.deepcopy(network)
    prune(smaller, removed, x)
    return smaller


def products(network: nn.Module, x: Tensor) -> dict[str, float]:
    return {cost.layer: cost.products for cost in costs(network, x.shape)}


def kill(network: nn.Module, host: Host, removed: dict[str, list[int]]) -> None:
    """Zero the filters, and gamma and beta of their normalisations: the channels are exactly 0 then."""
    with torch.no_grad():
        for layer, channels in removed.items():
            conv = network.get_submodule(layer)
            axis = 1 if isinstance(conv, (nn.ConvTranspose2d, nn.ConvTranspose3d)) and conv.groups == 1 else 0
            conv.weight.index_fill_(axis, torch.tensor(channels), 0)  # type: ignore[operator]
            if conv.bias is not None:
                conv.bias[channels] = 0  # type: ignore[operator,index]
            norms = [n.replace(".act", ".norm") for n in host.silence_at(layer)]
            for norm in [network.get_submodule(n) for n in norms if n not in (layer, "slopes")]:
                norm.weight[channels], norm.bias[channels] = 0, 0  # type: ignore[operator,index]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HOSTS)
def test_pruning_is_forcing_the_channels_to_0_in_all_that_reads_them(name: str, seed: int) -> None:
    host = HOSTS[name]
    network, x = host.network(seed), host.example(seed)
    removed = drawn(follow(network, x), (0.05, 0.2, 0.5)[seed], seed)
    assert removed
    with torch.no_grad(), silenced(network, host.silences(removed)):
        expected = network(x)
    with torch.no_grad():
        found = pruned(network, removed, x)(x)
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
        assert (network(x) - expected).abs().max() > 1e-6


@pytest.mark.parametrize("name", [n for n in HOSTS if n != "groups"])
def test_pruning_dead_filters_changes_neither_the_output_nor_an_argmax(name: str) -> None:
    host = HOSTS[name]
    network, x = host.network(), host.example()
    removed = drawn(follow(network, x), 0.3, 1, "majority")
    removed = removed or drawn(follow(network, x), 0.1, 1)
    kill(network, host, removed)
    with torch.no_grad():
        expected, found = network(x), pruned(network, removed, x)(x)
    scale = max(1.0, float(expected.abs().max()))
    assert (found - expected).abs().max() <= 1e-12 * scale
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("name", HOSTS)
def test_numbers_of_channels_fall_by_what_went_and_never_grow(name: str) -> None:
    host = HOSTS[name]
    network, x = host.network(), host.example()
    structure = follow(network, x)
    removed = drawn(structure, 0.3, 5)
    before, after = counts(network), counts(pruned(network, removed, x))
    for layer, numbers in before.items():
        assert all(1 <= after[layer][key] <= numbers[key] for key in numbers)
        if layer in structure.outputs:
            assert after[layer]["out_channels"] == numbers["out_channels"] - len(removed.get(layer, ()))


@pytest.mark.parametrize("name", HOSTS)
def test_the_blocks_end_where_the_host_says(name: str) -> None:
    host = HOSTS[name]
    network = host.network()
    structure = follow(network, host.example())
    expected = {layer: host.silence_at(layer)[0] for layer in structure.prunable()}
    assert {layer: structure.blocks[layer] for layer in structure.prunable()} == expected


def test_outputs_alone_halve_the_work_of_a_layer_and_both_sides_quarter_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ConvTranspose2d(12, 6, 2, 2),
                            nn.Conv2d(6, 2, 1))  # fmt: skip
    x = torch.rand(2, 3, 10, 10)
    before = products(network, x)
    assert before == {"0": 2 * 64 * 8 * 3 * 9, "2": 2 * 36 * 12 * 8 * 9, "3": 2 * 36 * 12 * 6 * 4, "4": 2 * 144 * 12}
    outputs = products(pruned(network, {"2": list(range(6))}, x), x)
    assert outputs["0"] == before["0"] and outputs["2"] == before["2"] / 2 and outputs["3"] == before["3"] / 2
    both = pruned(network, {"0": [0, 2, 4, 6], "2": list(range(6)), "3": [0, 1, 5]}, x)
    shares = {layer: work / before[layer] for layer, work in products(both, x).items()}
    assert shares == {"0": 0.5, "2": 0.25, "3": 0.25, "4": 0.5}


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "Adam": lambda m: torch.optim.Adam(m.parameters(), 1e-3, weight_decay=1e-5),
    "AMSGrad": lambda m: torch.optim.AdamW(m.parameters(), 1e-3, amsgrad=True),
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 1e-2, momentum=0.99, nesterov=True),
    "plain SGD": lambda m: torch.optim.SGD(m.parameters(), 1e-2),
}


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = network(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", ["plain 2D, strides", "plain 2D, pools", "additions"])
def test_training_goes_on_with_the_same_numbers_for_the_kept_entries(name: str, kind: str) -> None:
    host = HOSTS[name]
    network, x = host.network(), host.example()
    optimizer = OPTIMIZERS[kind](network)
    for _ in range(3):
        step(network, optimizer, x)
    removed = drawn(follow(network, x), 0.2, 3)
    kill(network, host, removed)
    smaller, its = copy.deepcopy((network, optimizer))
    # Every entry carries its own number through the pruning: that says which ones were kept, for each tensor.
    numbered = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in numbered.parameters():
            parameter.copy_(torch.arange(parameter.numel(), dtype=torch.float64).view_as(parameter))
    prune(numbered, removed, x)
    kept = {n: p.detach().long() for n, p in numbered.named_parameters()}
    smaller, its = copy.deepcopy((network, optimizer))
    prune(smaller, removed, x, its)
    assert [id(p) for group in its.param_groups for p in group["params"]] == [id(p) for p in smaller.parameters()]
    smaller_loss, whole_loss = step(smaller, its, x), step(network, optimizer, x)
    assert torch.allclose(smaller_loss, whole_loss, rtol=1e-12)
    theirs = dict(network.named_parameters())
    changed = 0
    for key, parameter in smaller.named_parameters():
        original = theirs[key]
        changed += parameter.numel() < original.numel()
        assert torch.allclose(parameter, original.flatten()[kept[key]], rtol=1e-9, atol=1e-10), key
        for what, value in its.state.get(parameter, {}).items():
            whole = optimizer.state[original][what]
            if isinstance(value, Tensor) and value.ndim:
                assert value.shape == parameter.shape
                assert torch.allclose(value, whole.flatten()[kept[key]], rtol=1e-9, atol=1e-10), (key, what)
            else:
                assert value == whole
    assert changed > 4 and len(its.state) == len(optimizer.state)


def test_a_loss_that_is_still_alive_does_not_hold_back_training() -> None:
    network, x = PlainUNet(2, 1, 2, (4, 6)), torch.rand(1, 1, 8, 8)
    optimizer = torch.optim.Adam(network.parameters())
    alive = step(network, optimizer, x)
    prune(network, {"encoder.0.0.conv": [1]}, x, optimizer)
    assert step(network, optimizer, x).isfinite() and alive.grad_fn is not None
    assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())


def test_gradients_and_buffers_are_cut_and_frozen_weights_stay_frozen() -> None:
    network = nn.Sequential(nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.Conv1d(3, 1, 1))
    network[0].weight.requires_grad_(False)
    x = torch.rand(2, 1, 9)
    network(x).sum().backward()
    grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    state = copy.deepcopy(network.state_dict())
    prune(network, {"0": [1]}, x)
    assert not network[0].weight.requires_grad and network[0].weight.grad is None
    assert torch.equal(network[1].weight.grad, grads["1.weight"][[0, 2]])  # type: ignore[arg-type]
    assert torch.equal(network[2].weight.grad, grads["2.weight"][:, [0, 2]])  # type: ignore[arg-type]
    for key in ("running_mean", "running_var"):
        assert torch.equal(getattr(network[1], key), state[f"1.{key}"][[0, 2]])


def test_an_optimizer_whose_state_is_no_tensor_of_the_parameter_s_shape_is_refused_before_anything_is_cut() -> None:
    network, x = PlainUNet(2, 1, 2, (4, 6)), torch.rand(1, 1, 8, 8)
    optimizer = torch.optim.Adafactor(network.parameters())
    step(network, optimizer, x)
    before = counts(network)
    with pytest.raises(InputError, match=r"Expected an optimizer's state .* got row_var"):
        prune(network, {"encoder.0.0.conv": [1]}, x, optimizer)
    assert counts(network) == before


@pytest.mark.parametrize(("votes", "kept", "rule", "expected"), [
    ({"inward.conv": [1]}, {}, "all", {}),
    ({"inward.conv": [1], "two.conv": [1, 2]}, {}, "all", {}),  # the up-convolution is a third summand
    ({"inward.conv": [1], "two.conv": [1, 2]}, {}, "majority", {"inward.conv": [1], "two.conv": [1], "up": [1]}),
    ({"inward.conv": [1], "two.conv": [1], "up": [1, 3]}, {}, "all", {"inward.conv": [1], "two.conv": [1], "up": [1]}),
    ({"up": [1]}, {}, "any", {"inward.conv": [1], "two.conv": [1], "up": [1]}),
    ({"up": [1, 4]}, {"two.conv": [4]}, "any", {"inward.conv": [1], "two.conv": [1], "up": [1]}),
    ({"one.conv": [0, 1, 2, 3]}, {}, "all", {"one.conv": [1, 2, 3]}),  # never all of a layer
    ({"one.conv": [0, 1, 2, 3]}, {"one.conv": [2]}, "all", {"one.conv": [0, 1, 3]}),
    ({"head": [0]}, {}, "any", {}),
])  # fmt: skip
def test_a_class_goes_by_the_votes_of_its_convolutions(votes: dict[str, list[int]], kept: dict[str, list[int]],
                                                       rule: str, expected: dict[str, list[int]]) -> None:  # fmt: skip
    structure = follow(ResidualUNet(), torch.rand(1, 2, 8, 8))
    assert decide(structure, votes, kept, rule) == expected


def test_an_unpooling_and_the_pooling_of_its_indices_share_their_channels() -> None:
    structure = follow(PlainUNet(2, 1, 2, (4, 6, 8), downsampling="pool"), torch.rand(1, 1, 16, 16))
    assert decide(structure, {"up.0.conv": [2]}, rule="any") == {"encoder.0.1.conv": [2], "up.0.conv": [2]}
    assert decide(structure, {"encoder.1.1.conv": [5]}, rule="any") == {"encoder.1.1.conv": [5], "up.1.conv": [5]}


def test_a_group_of_a_normalisation_and_a_depthwise_filter_with_its_input_go_whole() -> None:
    network, x = Attending(), torch.rand(1, 1, 8, 8)
    removed = decide(follow(network, x), {"inward.0": [2]}, rule="any")
    assert removed == {"inward.0": [2, 3], "depthwise": [4, 5, 6, 7]}
    prune(network, removed, x)
    assert (network.inward[1].num_groups, network.inward[1].num_channels, network.depthwise.groups) == (2, 4, 4)
    assert network.depthwise.weight.shape == (8, 1, 3, 3) and network.point.weight.shape == (8, 8, 1, 1)


def test_heads_are_never_prunable_those_of_deep_supervision_neither() -> None:
    network, x = SupervisedUNet(2, 1, 2, (4, 6, 8, 10)), torch.rand(1, 1, 32, 32)
    prunable = follow(network, x).prunable()
    assert "encoder.3.1.conv" in prunable and not {"classifier", "heads.0"} & set(prunable)
    with pytest.raises(InputError, match=r"got channel 1 of 'heads.0', which leaves the network"):
        prune(network, {"heads.0": [1]}, x)
    prune(network, {"decoder.1.1.conv": [0, 5]}, x)
    assert network.heads[0].in_channels == 4 and [len(y.shape) for y in network(x)] == [4, 4]
    with pytest.raises(InputError, match=r"'heads.0' is not, in the mode"):
        follow(network.eval(), x)


@pytest.mark.parametrize(("name", "count"), [("Rats", 7_367_686), ("ATLAS", 12_699_750), ("KiTS", 12_699_921)])
def test_the_paper_s_networks_have_the_published_numbers_of_parameters(name: str, count: int) -> None:
    assert sum(p.numel() for p in baseline(name).parameters()) == count
    with pytest.raises(InputError, match=f"out of {', '.join(CONFIGURATIONS)}, got 'ACDC'"):
        baseline("ACDC")


@pytest.mark.parametrize(("removed", "sentence"), [
    ({"inward.con": [0]}, "Expected the name of a convolution, got 'inward.con'; the nearest one is 'inward.conv'."),
    ({"one.conv": [4]}, "Expected channels 0 to 3 of 'one.conv', got 4."),
    ({"one.conv": [-1]}, "Expected channels 0 to 3 of 'one.conv', got -1."),
    ({"head": [0]}, "Expected channels that may go, got channel 0 of 'head', which leaves the network."),
    ({"up": [1]}, "Expected channel 1 of 'inward.conv' to go with channel 1 of 'up'."),
    ({"one.conv": range(4)}, "Expected a channel of 'one.conv' to stay, all 4 would go."),
])  # fmt: skip
def test_channels_that_cannot_go_are_refused_in_a_sentence(removed: dict[str, list[int]], sentence: str) -> None:
    network, x = ResidualUNet(), torch.rand(1, 2, 8, 8)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError) as caught:
        prune(network, removed, x)
    assert str(caught.value) == sentence
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match="Expected a rule out of all, majority, any, got 'most'"):
        decide(follow(ResidualUNet(), torch.rand(1, 2, 8, 8)), {}, rule="most")
