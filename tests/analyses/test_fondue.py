"""Is the network FONDUE, in values, shapes and size, and does it take NaNs?"""

import pytest
import torch
from torch import Tensor

import nanops
from analyses.models.fondue import DEEPEST, FONDUE, inner_size
from mcaprobe.errors import InputError
from tests.reference.nested_unet_twin import residual

SHARED, OWN = (1, 2, 3, 4, 4, 4), (1, 2, 3, 4, 5, 6)


def small(**options: object) -> FONDUE:
    torch.manual_seed(0)
    return FONDUE(slices=3, filters=3, **options).double().eval()  # type: ignore[arg-type]


def head(background: float = 0.0) -> Tensor:
    """A noisy disc before a constant background, (1, 3, 45, 34)."""
    rows, columns = torch.meshgrid(torch.linspace(-2, 2, 45), torch.linspace(-2, 2, 34), indexing="ij")
    noise = torch.rand(1, 3, 45, 34, generator=torch.Generator().manual_seed(1)).double()
    return torch.where(rows**2 + columns**2 < 1, noise, background)


@pytest.mark.parametrize("zoom", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("shared", [True, False], ids=["shared heads", "own heads"])
@torch.no_grad()
def test_the_network_computes_what_the_recursion_says(zoom: float, shared: bool) -> None:
    alpha = (1.0, 2.0, 0.5, 1.0, 3.0, 0.25)
    network = small(alpha=alpha, shared_heads=shared)
    x = torch.rand(2, 3, 33, 46, dtype=torch.float64)
    expected = residual(x, network.state_dict(), alpha, zoom, SHARED if shared else OWN)
    torch.testing.assert_close(network(x, zoom, residual=True), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network(x, zoom), (x[:, 1:2] - expected).clamp(0, 1), rtol=1e-12, atol=1e-12)


def test_the_number_of_parameters_follows_from_the_description() -> None:
    conv = 9 * 64 * 64 + 64
    first, block, final = 9 * 7 * 64 + 64 + 2 * conv + 1, 3 * conv + 1, 64 + 1
    nodes = 7 + 6 + 5 + 4 + 3 + 2 + 1
    found = sum(p.numel() for p in FONDUE().parameters())
    assert found == first + (nodes - 1) * block + 6 * final + 6 + 4 == 3_069_548


@pytest.mark.parametrize(
    ("size", "zoom", "inner"),
    [((256, 256), 1.0, [288, 288]), ((320, 300), 0.8, [288, 256]), ((48, 80), 1.0, [64, 128]), ((1, 9), 1.0, [32, 32])],
    ids=["1 mm", "0.8 mm", "halves go to even", "tiny"],
)
@torch.no_grad()
def test_level_1_has_a_multiple_of_32_pixels(size: tuple[int, int], zoom: float, inner: list[int]) -> None:
    assert inner_size(size, zoom) == inner
    if max(size) < 100:
        network, seen = small(), []
        network.conv1_0.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
        assert network(torch.rand(1, 3, *size).double(), zoom).shape == (1, 1, *size)
        assert list(seen[0]) == inner


@torch.no_grad()
def test_every_unpooling_of_a_level_has_the_indices_of_its_first_node() -> None:
    network = small()
    pooled: dict[int, Tensor] = {}
    unpooled: dict[int, list[Tensor]] = {level: [] for level in range(1, DEEPEST)}
    for level in range(1, DEEPEST):
        network.pools[f"x{level}_0"].register_forward_hook(lambda _, __, out, i=level: pooled.update({i: out[1]}))
        for column in range(1, DEEPEST + 1 - level):
            unpool = network.node(level, column).unpool
            unpool.register_forward_hook(lambda _, inputs, __, i=level: unpooled[i].append(inputs[1]))  # type: ignore
    network(head())
    for level, found in unpooled.items():
        assert len(found) == DEEPEST - level
        assert all(torch.equal(indices, pooled[level]) for indices in found)


@pytest.mark.parametrize("zoom", [1.0, 0.6])
@torch.no_grad()
def test_without_ties_conservative_nans_change_nothing(zoom: float) -> None:
    network = small()
    x = torch.rand(1, 3, 45, 34, dtype=torch.float64)
    found = nanops.convert(network, "conservative")(x, zoom, residual=True)
    torch.testing.assert_close(found, network(x, zoom, residual=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pooling", ["conservative", "aggressive"])
@torch.no_grad()
def test_a_constant_background_makes_nans_and_a_finite_image(pooling: str) -> None:
    network = nanops.convert(small(), pooling)
    layer = network.pools["x1_0"] if pooling == "aggressive" else network.conv1_1.unpool
    rates: list[float] = []
    layer.register_forward_hook(
        lambda _, __, out: rates.append((out[0] if isinstance(out, tuple) else out).isnan().double().mean().item())
    )
    found = network(head())
    assert 0.05 < rates[0] < 1
    assert found.isfinite().all()
    assert found.shape == (1, 1, 45, 34)


def test_the_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match=r"Expected x of shape \(N, 3, H, W\), got \(1, 4, 32, 32\)"):
        small()(torch.zeros(1, 4, 32, 32))
    with pytest.raises(InputError, match="Expected a positive zoom, got 0"):
        small()(head(), 0.0)
    with pytest.raises(InputError, match="odd number of slices, got 4"):
        FONDUE(slices=4, filters=2)
    with pytest.raises(InputError, match="Expected 6 weights of heads"):
        FONDUE(filters=2, alpha=(1.0,))
