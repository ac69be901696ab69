"""Is the network E2ENet's: its shift, its fusion, its size, and what it refuses?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nanops
from analyses.models.depth_shift import depth_shift
from analyses.models.e2enet import FUSION, E2ENet, Node
from analyses.training.supervision import deep_supervision
from mcaprobe.errors import InputError
from tests.reference import depth_shift_twin, fusion_twin


def small(features: Sequence[int] = (6, 8, 9), **options: Any) -> E2ENet:
    torch.manual_seed(0)
    return E2ENet(2, 3, features, **options).double()


def volume(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_ramp_is_shifted_as_the_table_says() -> None:
    ramp = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 1, 1)
    assert depth_shift(ramp)[0, :, :, 0, 0].tolist() == [[1, 2, 3, 0], [0, 1, 2, 3], [0, 0, 1, 2]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 48])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_channel_is_shifted_as_by_the_twin(channels: int, depth: int) -> None:
    x = volume(2, channels, depth, 2, 3)
    assert np.array_equal(depth_shift(x).numpy(), depth_shift_twin.depth_shift(x.numpy()))


def test_a_shift_moves_a_nan_and_no_more() -> None:
    x = torch.zeros(1, 3, 4, 1, 1)
    x[0, :, 2] = float("nan")
    assert depth_shift(x).isnan()[0, :, :, 0, 0].nonzero().tolist() == [[0, 1], [1, 2], [2, 3]]


def test_a_shift_of_something_flat_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(N, C, D, H, W\), got \(1, 3, 4, 4\)"):
        depth_shift(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("step", "units"), [((2, 2, 2), 1), ((1, 2, 2), 2)], ids=["one unit", "flat, two units"])
def test_a_node_fuses_three_flows_as_the_twin_does(step: tuple[int, int, int], units: int) -> None:
    torch.manual_seed(1)
    node = Node(2, 3, 4, step, step, units).double()
    for unit in node.units:
        nn.init.normal_(unit.conv.bias)
        nn.init.normal_(unit.norm.weight)
        nn.init.normal_(unit.norm.bias)
    coarse = tuple(4 // s for s in step)
    finer = tuple(4 * s for s in step)
    same, below, above = volume(1, 2, 4, 4, 4), volume(1, 3, *coarse, seed=1), volume(1, 4, *finer, seed=2)
    y = fusion_twin.up(below[0].numpy(), node.up.weight.detach().numpy())
    y = np.concatenate([same[0].numpy(), y, fusion_twin.down(above[0].numpy(), step)])
    for unit in node.units:
        weights = unit.conv.weight, unit.conv.bias, unit.norm.weight, unit.norm.bias
        y = fusion_twin.unit(y, *(w.detach().numpy() for w in weights))
    assert np.abs(node(same, below, above)[0].detach().numpy() - y).max() < 1e-12


def test_the_parameters_are_as_many_as_the_specification_says() -> None:
    with torch.device("meta"):
        network = E2ENet(1, 16)
    masked = [name for name, _ in network.named_parameters() if name.startswith("nodes") and name.endswith("t")]
    fusion = [name for name in masked if "norm" not in name]
    sizes = dict(network.named_parameters())
    assert len(fusion) == 35 and sum(sizes[name].numel() for name in fusion) == 18_067_200
    assert sum(p.numel() for p in network.parameters()) == 23_899_088
    assert sum(isinstance(m, nn.ConvTranspose3d) for m in network.modules()) == 15
    assert set(network.nodes) == {f"x{i}_{j}" for j in range(1, 6) for i in range(6 - j)}
    doubled = {name for name, node in network.nodes.items() if len(node.units) == 2}  # type: ignore[arg-type]
    assert doubled == {"x0_5", "x1_4", "x2_3", "x3_2", "x4_1"}
    assert FUSION == ("nodes.*.units.*.conv.weight", "nodes.*.up.weight")


def test_all_heads_speak_in_training_and_the_finest_one_in_eval() -> None:
    network = small((3, 4, 5, 6, 7), strides=(1, (1, 2, 2), 2, 2, 2))
    x = volume(2, 2, 8, 16, 32)
    outputs = network.train()(x)
    assert [tuple(y.shape) for y in outputs] == [(2, 3, 8, 16, 32), (2, 3, 8, 8, 16), (2, 3, 4, 4, 8)]
    assert torch.equal(network.eval()(x), outputs[0])


def test_each_head_reads_the_last_node_of_its_level() -> None:
    network = small((3, 4, 5, 6)).train()
    seen: dict[str, Tensor] = {}
    for name, node in network.nodes.items():
        node.register_forward_hook(lambda _, __, y, name=name: seen.__setitem__(name, y))
    outputs = network(volume(1, 2, 8, 8, 16))
    for level, (head, y) in enumerate(zip(network.heads, outputs, strict=True)):
        assert torch.equal(y, head(seen[f"x{level}_{3 - level}"]))


def test_each_node_fuses_its_level_the_one_below_and_the_one_above() -> None:
    network = small((3, 4, 5, 6)).eval()
    seen: dict[str, Tensor] = {}
    read: dict[str, tuple[Tensor | None, ...]] = {}
    for i, stage in enumerate(network.backbone):
        stage.register_forward_hook(lambda _, __, y, i=i: seen.__setitem__(f"x{i}_0", y))
    for name, node in network.nodes.items():
        node.register_forward_hook(lambda _, x, y, name=name: (seen.update({name: y}), read.update({name: x}), y)[2])
    network(volume(1, 2, 8, 8, 16))
    assert list(read) == ["x0_1", "x1_1", "x2_1", "x0_2", "x1_2", "x0_3"]
    for name, (same, below, above) in read.items():
        i, j = int(name[1]), int(name[3]) - 1
        assert same is seen[f"x{i}_{j}"] and below is seen[f"x{i + 1}_{j}"]
        assert above is (seen[f"x{i - 1}_{j}"] if i else None)


def test_every_parameter_learns() -> None:
    network = small().train()
    sum(y.square().sum() for y in network(volume(1, 2, 8, 8, 8))).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or (p.grad == 0).all()]
    assert not silent


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 2, 8, 8, 10), r"multiples of 4 x 4 x 4, got \(8, 8, 10\): layer 'backbone.2' cannot divide \(4, 4, 5\)"),
        ((1, 2, 8, 7, 8), r"layer 'backbone.1' cannot divide \(8, 7, 8\) by \(2, 2, 2\)"),
        ((1, 2, 8, 0, 8), r"layer 'backbone.0' cannot divide \(8, 0, 8\)"),
        ((1, 1, 8, 8, 8), r"x of shape \(N, 2, D, H, W\), got \(1, 1, 8, 8, 8\)"),
        ((2, 8, 8, 8), r"x of shape \(N, 2, D, H, W\), got \(2, 8, 8, 8\)"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        small()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": (4,)}, "two levels or more"),
        ({"features": (4, 0)}, "channels of 1 or more"),
        ({"strides": (1, 2)}, "3 strides"),
        ({"strides": (2, 2, 2)}, "the first of them 1"),
        ({"strides": (1, (2, 2), 2)}, "one or 3 a stage"),
        ({"heads": 3}, "1 to 2 heads, got 3"),
        ({"heads": 0}, "1 to 2 heads, got 0"),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        small(**options)


def test_three_outputs_weigh_as_in_algorithm_1() -> None:
    target = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    outputs = [torch.full((1, 2, n, n, n), v) for n, v in ((4, 7.0), (2, 70.0), (1, 700.0))]
    total = deep_supervision(lambda y, _: y.mean(), outputs, target)
    assert float(total) == pytest.approx(4 / 7 * 7 + 2 / 7 * 70 + 1 / 7 * 700)


def test_a_coarse_output_sees_the_nearest_classes() -> None:
    target = torch.randint(0, 5, (1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    deep_supervision(lambda y, t: seen.append(t) or y.sum(), [torch.zeros(1, 5, n, n, n) for n in (4, 2)], target)
    assert torch.equal(seen[0], target) and torch.equal(seen[1], target[:, 1::2, 1::2, 1::2])
    with pytest.raises(InputError, match="an output or more"):
        deep_supervision(lambda y, _: y.sum(), [], target)


def test_aggressive_nans_arise_in_the_downward_pools_and_stop_before_the_output() -> None:
    network = small((6, 12, 24)).eval()
    x = torch.zeros(1, 2, 16, 16, 16, dtype=torch.float64)  # a constant field ties in every pool
    x[..., 6:12, 6:12, 6:12] = volume(1, 2, 6, 6, 6)
    converted = nanops.convert(network, pooling="aggressive", threshold=0.1)
    pooled: list[Tensor] = []
    converted.get_submodule("nodes.x1_1.down").register_forward_hook(lambda _, __, y: pooled.append(y))
    with torch.inference_mode(), nanops.count_skipped(converted) as skipped:
        y = converted(x)
    assert pooled[0].isnan().any() and not pooled[0].isnan().all()
    assert skipped.layers["nodes.x1_1.units.0.conv"].skipped > 0
    assert not y.isnan().any() and y.shape == (1, 3, 16, 16, 16)


def test_a_conversion_that_makes_no_nan_changes_nothing() -> None:
    network = small().eval()
    x = volume(1, 2, 8, 8, 8)
    assert torch.equal(nanops.convert(network, pooling=None)(x), network(x))
